"""A short run of every kind of fault against the real services. The long run is ``python -m tests.faults.long``."""

import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from shared.ids import batch_of, image_id
from shared.ledger import audit
from shared.ledger.shown_results import shown_fence
from shared.states import SOLO_LOSSES_ALLOWED
from shared.storage.blob_keys import batch_prefix, image_prefix, original_key, spool_key
from tests.faults.fault_injector import FaultCounts, FaultInjector
from tests.faults.fault_plan import FAILPOINTS
from tests.faults.images import (
    MODEL_CRASHING_SIZE,
    UploadImage,
    draw_crashing_image,
    draw_hanging_image,
    draw_model_crashing_image,
    draw_valid_image,
    make_decompression_bomb,
)
from tests.faults.oracle import verify, wait_until_terminal
from tests.faults.services import HARD_LIMIT_S, LEASE_S, FaultStack
from tests.faults.stored_results import find_wrong_files
from tests.faults.upload_load import AcceptedBatch, UploadLoad, request_with_retries
from tests.support.service_stack import wait_until

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(1800)]
SEED = 20


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultStack]:
    fault_stack = FaultStack(tmp_path_factory.mktemp("faults"))
    try:
        fault_stack.start()
        yield fault_stack
    finally:
        fault_stack.stop()


@pytest.fixture(scope="module")
def load(stack: FaultStack) -> UploadLoad:
    """Return one load for all tests of this stack, because the oracle accounts for every batch in it."""
    return UploadLoad(stack.url, SEED, lambda: audit.backlog(stack.db).images, changes=True, blobs_root=stack.blobs_root)


def draw_valid_images(seed: str, number: int) -> list[UploadImage]:
    generator = random.Random(seed)
    return [draw_valid_image(generator) for _ in range(number)]


def is_closed(stack: FaultStack, batch: AcceptedBatch) -> bool:
    return stack.db.batches.count_documents({"_id": batch.batch_id, "open": True}) == 0


def read_files(stack: FaultStack, batch: AcceptedBatch) -> dict[str, tuple[int, bytes]]:
    """Return the inode and the bytes of every file of a batch by path. The inode shows an overwrite with equal bytes."""
    root: Path = stack.blobs_root / batch_prefix(batch.batch_id)
    return {str(path): (path.stat().st_ino, path.read_bytes()) for path in root.rglob("*") if path.is_file()}


@pytest.mark.parametrize("deleted", [False, True], ids=["finished by another", "deleted"])
def test_a_frozen_worker_overwrites_nothing_when_it_continues(stack: FaultStack, load: UploadLoad, *, deleted: bool) -> None:
    failpoint = "5-original-kept"
    stack.plan.stop_at(failpoint)
    batch = load.send(draw_valid_images(f"frozen {deleted}", 3))
    wait_until(lambda: stack.plan.stopped(failpoint) is not None, 120, "a worker is frozen")
    frozen = psutil.Process(stack.plan.stopped(failpoint))
    (stack.plan.folder / "stopped" / failpoint).unlink()
    try:
        wait_until(lambda: is_closed(stack, batch), 60, "another worker takes over after the lease")
        wait_until(lambda: stack.blobs.stat(spool_key(batch.batch_id)) is None, 30, "the spool is deleted")
        assert frozen.status() == psutil.STATUS_STOPPED
        documents = list(stack.db.images.find({"batch_id": batch.batch_id}))
        assert all(image["work"]["fence"] >= 2 for image in documents)
        before = read_files(stack, batch)
        if deleted:
            with httpx.Client(base_url=stack.url, timeout=30) as client:
                assert request_with_retries(client, "DELETE", f"/image_batches/{batch.batch_id}").status_code in {204, 404}  # 404: an earlier attempt has deleted it
            documents = list(stack.db.images.find({"batch_id": batch.batch_id}))
            before = {}
    finally:
        os.kill(frozen.pid, signal.SIGCONT)
    time.sleep(2 * LEASE_S)  # the worker continues, finds that its lease is lost and tries to finish
    assert list(stack.db.images.find({"batch_id": batch.batch_id})) == documents
    after = read_files(stack, batch)
    assert {path: after.get(path) for path in before} == before
    if deleted:
        wait_until(
            lambda: (
                not (stack.blobs_root / batch_prefix(batch.batch_id)).exists()
                and not stack.db.images.count_documents({"batch_id": batch.batch_id})
            ),
            HARD_LIMIT_S + LEASE_S + 120,
            "the sweep removes the files that the worker wrote after the deletion",
        )
        load.accepted.remove(batch)
        stack.db.ledger.delete_one({"_id": batch.batch_id})  # exclude the batch from the oracle


def test_only_the_harmful_images_fail(stack: FaultStack, load: UploadLoad) -> None:
    generator = random.Random(SEED)
    harmful = [draw_crashing_image(generator, "jpg"), draw_crashing_image(generator, "png"), make_decompression_bomb(generator)]
    for crashing in harmful[:2]:
        stack.plan.crash_on(crashing.sha256)
    began = time.monotonic()
    batches = [load.send([draw_valid_image(generator), image, draw_valid_image(generator)]) for image in harmful]
    for batch in batches:
        wait_until(lambda batch=batch: is_closed(stack, batch), 120, "a batch with a harmful image is closed")  # type: ignore[misc]
    assert time.monotonic() - began < 120
    verdict = verify(stack, load)
    assert verdict.problems == []
    assert verdict.harmful == 3


def test_images_that_crash_or_hang_the_worker_fail_and_the_others_are_done(stack: FaultStack, load: UploadLoad) -> None:
    generator = random.Random(f"{SEED} worker")
    crashing, hanging = draw_model_crashing_image(generator), draw_hanging_image(generator)
    stack.plan.crash_model_on(MODEL_CRASHING_SIZE)
    stack.plan.hang_on(hanging.sha256)
    batch = load.send([draw_valid_image(generator), crashing, hanging, draw_valid_image(generator)])
    ids = [image_id(batch.batch_id, index) for index in range(4)]
    images = stack.db.images
    images.update_one({"_id": ids[1]}, {"$set": {"work.losses": SOLO_LOSSES_ALLOWED - 2}})  # all of them would take minutes

    def is_closed_without_delays() -> bool:
        images.update_many({"_id": {"$in": ids}, "status": "queued"}, [{"$set": {"work.not_before": "$created_at"}}])
        return is_closed(stack, batch)

    wait_until(is_closed_without_delays, 900, "the batch is closed")
    found = [images.find_one({"_id": name}) or {} for name in ids]
    assert [image["status"] for image in found] == ["done", "failed", "failed", "done"]
    assert [image["error"]["code"] for image in found[1:3]] == ["decoder_crash"] * 2
    assert [found[index]["work"].get("losses", 0) for index in (0, 1, 3)] == [0, SOLO_LOSSES_ALLOWED, 0]
    assert verify(stack, load).problems == []


def test_nothing_is_lost_or_doubled_under_kills_at_every_failpoint_and_at_random(stack: FaultStack, load: UploadLoad) -> None:
    for point in FAILPOINTS:
        stack.plan.kill_at(point)
    load.start()
    wait_until(lambda: set(stack.plan.killed()) == set(FAILPOINTS), 600, "every failpoint is reached")
    at_failpoints = len(stack.plan.killed())
    injector = FaultInjector(stack, SEED)
    wanted = FaultCounts(kills=at_failpoints + 10, flushes=2, mongo_kills=1, redis_outages=1, disk_fills=1)
    last = injector.run(wanted, pause_s=1.0, limit_s=400)
    wait_until_terminal(stack, load, last)
    verdict = verify(stack, load, cleaned=True)
    assert verdict.problems == []
    assert verdict.lost == verdict.doubled == verdict.valid_failed == verdict.files_wrong == 0
    assert injector.kill_count() >= at_failpoints + 10
    assert injector.missing(wanted) == {}
    assert load.changes.deleted
    assert load.changes.moved
    assert {("cancel", 202), ("reprocess", 202)} <= {(operation.action, operation.status) for operation in load.changes.operations}
    assert min(verdict.queued_again, verdict.cancelled, verdict.read_meanwhile) > 0


def test_the_oracle_detects_tampering(stack: FaultStack, load: UploadLoad) -> None:
    """Runs last. It shows that the oracle detects errors, so that the tests above prove something."""
    batches = [load.send(draw_valid_images(f"{SEED} {number}", 4)) for number in range(6)]
    wrong = batches.pop()
    deleted = image_id(wrong.batch_id, 1)
    load.changes.delete(deleted)
    wait_until(lambda: all(is_closed(stack, batch) for batch in batches), 240, "all batches are closed")
    # While a spool exists, the sweep repairs an original from it.
    wait_until(lambda: all(stack.blobs.stat(spool_key(batch.batch_id)) is None for batch in batches), 240, "their spools are deleted")
    one_per_batch = {"$group": {"_id": "$batch_id", "image": {"$first": "$$ROOT"}}}
    ids = [batch.batch_id for batch in batches]
    valid_jpegs = {"$match": {"batch_id": {"$in": ids}, "status": "done", "content_type": "image/jpeg"}}
    rows = stack.db.images.aggregate([valid_jpegs, one_per_batch, {"$limit": 5}])
    removed, repeated, failed, corrupted, copied = (row["image"] for row in rows)
    stack.db.images.delete_one({"_id": removed["_id"]})
    for status in ("queued", "done"):  # a second result
        stack.db.images.update_one({"_id": repeated["_id"]}, {"$set": {"status": status}})
    stack.db.images.update_one(
        {"_id": failed["_id"]}, {"$set": {"status": "failed", "error": {"code": "corrupt", "detail": ""}}}
    )
    stack.blobs.write(original_key(corrupted["_id"], "jpg"), [b"other bytes"])
    document = stack.db.batches.find_one({"_id": copied["batch_id"]})
    assert document is not None
    stack.db.batches.insert_one({**document, "_id": "f" * 32})
    wait_until(lambda: not stack.db.images.count_documents({"_id": deleted}), HARD_LIMIT_S + LEASE_S + 120, "the document of the deleted image is deleted")
    stack.blobs.write(f"{image_prefix(deleted)}/1/thumb.jpg", [b"file of a deleted image"])
    stack.db.batches.update_one({"_id": wrong.batch_id}, {"$inc": {"total": 1}})
    stack.db.ledger.update_one({"_id": wrong.batch_id}, {"$inc": {"deleted": 1}})
    verdict = verify(stack, load)
    with_old_files, without_files, published, kept_spool = (image["_id"] for image in (removed, repeated, corrupted, copied))
    stack.blobs.write(f"{image_prefix(with_old_files)}/1/thumb.jpg", [b"file of an image without a document"])
    stack.blobs.write(f"{image_prefix(published)}/999/thumb.jpg", [b"file of another fence"])
    stack.blobs.publish(image_prefix(published), "999")
    stack.blobs.delete_tree(f"{image_prefix(without_files)}/{shown_fence(repeated)}")
    stack.blobs.write(spool_key(batch_of(kept_spool)), [b"a spool"])
    unexplained = "\n".join(find_wrong_files(stack, ids))
    for expected in (
        f"{image_prefix(with_old_files)}: a file of no image",
        f"{published}: it has the files of the fences",
        f"{published}: the files of 999 are published",
        f"{without_files}: it has the files of the fences [], but",
        f"{batch_of(kept_spool)}: its spool is left",
    ):
        assert expected in unexplained
    assert verdict.lost == 1
    assert verdict.doubled >= 2
    assert verdict.valid_failed == 1
    assert verdict.files_wrong >= 1
    problems = "\n".join(verdict.problems)
    for expected in (removed["batch_id"], repeated["_id"], failed["_id"], corrupted["_id"], "f" * 32, "does not balance"):
        assert expected in problems
    for expected in (f"{deleted}: it was deleted, but has files", f"{wrong.batch_id}: the document of the batch has", f"{wrong.batch_id}: 3 of 4 images stand"):
        assert expected in problems
