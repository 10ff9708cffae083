"""A short run of every kind of fault against the real services. The long one: ``python -m tests.faults.long``."""

import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from shared.ledger import audit
from shared.storage.blob_keys import batch_prefix, original_key, spool_key
from tests.faults.fault_injector import FaultCounts, FaultInjector
from tests.faults.fault_plan import FAILPOINTS
from tests.faults.images import UploadImage, draw_crashing_image, draw_valid_image, make_decompression_bomb
from tests.faults.oracle import verify, wait_until_terminal
from tests.faults.services import HARD_LIMIT_S, LEASE_S, FaultStack
from tests.faults.upload_load import AcceptedBatch, UploadLoad, request_with_retries
from tests.support.service_stack import wait_until

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(1800)]
SEED = 20


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultStack]:
    made = FaultStack(tmp_path_factory.mktemp("faults"))
    try:
        made.start()
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="module")
def load(stack: FaultStack) -> UploadLoad:
    """One load for all tests of this stack: the oracle at the end accounts for everything."""
    return UploadLoad(stack.url, SEED, lambda: audit.backlog(stack.db).images)


def draw_valid_images(seed: str, number: int) -> list[UploadImage]:
    source = random.Random(seed)
    return [draw_valid_image(source) for _ in range(number)]


def is_closed(stack: FaultStack, sent: AcceptedBatch) -> bool:
    return stack.db.batches.count_documents({"_id": sent.batch_id, "open": True}) == 0


def read_files(stack: FaultStack, sent: AcceptedBatch) -> dict[str, tuple[int, bytes]]:
    """Every file of a batch by its path: its inode and its bytes, so that even an equal overwrite shows."""
    root: Path = stack.blobs_root / batch_prefix(sent.batch_id)
    return {str(path): (path.stat().st_ino, path.read_bytes()) for path in root.rglob("*") if path.is_file()}


@pytest.mark.parametrize("deleted", [False, True], ids=["finished by another", "deleted"])
def test_a_frozen_worker_overwrites_nothing_when_it_wakes_up(stack: FaultStack, load: UploadLoad, *, deleted: bool) -> None:
    point = "5-original-kept"
    stack.plan.stop_at(point)
    sent = load.send(draw_valid_images(f"frozen {deleted}", 3))
    wait_until(lambda: stack.plan.stopped(point) is not None, 120, "a worker freezes")
    frozen = psutil.Process(stack.plan.stopped(point))
    (stack.plan.folder / "stopped" / point).unlink()
    try:
        wait_until(lambda: is_closed(stack, sent), 60, "another worker takes over after the lease")
        wait_until(lambda: stack.blobs.stat(spool_key(sent.batch_id)) is None, 30, "the spool is deleted")
        assert frozen.status() == psutil.STATUS_STOPPED
        documents = list(stack.db.images.find({"batch_id": sent.batch_id}))
        assert all(image["work"]["fence"] >= 2 for image in documents)
        before = read_files(stack, sent)
        if deleted:
            with httpx.Client(base_url=stack.url, timeout=30) as client:
                assert request_with_retries(client, "DELETE", f"/image_batches/{sent.batch_id}").status_code in {204, 404}  # the second when an earlier try took place
            documents = list(stack.db.images.find({"batch_id": sent.batch_id}))
            before = {}
    finally:
        os.kill(frozen.pid, signal.SIGCONT)
    time.sleep(2 * LEASE_S)  # it looks, finds its lease lost, tries to finish
    assert list(stack.db.images.find({"batch_id": sent.batch_id})) == documents
    after = read_files(stack, sent)
    assert {path: after.get(path) for path in before} == before
    if deleted:
        wait_until(
            lambda: (
                not (stack.blobs_root / batch_prefix(sent.batch_id)).exists()
                and not stack.db.images.count_documents({"batch_id": sent.batch_id})
            ),
            HARD_LIMIT_S + LEASE_S + 120,
            "the sweep removes what it wrote after the deletion",
        )
        load.sent.remove(sent)
        stack.db.ledger.delete_one({"_id": sent.batch_id})  # out of the oracle's account


def test_only_the_poison_fails(stack: FaultStack, load: UploadLoad) -> None:
    source = random.Random(SEED)
    poison = [draw_crashing_image(source, "jpg"), draw_crashing_image(source, "png"), make_decompression_bomb(source)]
    for one in poison[:2]:
        stack.plan.poison(one.sha256)
    began = time.monotonic()
    batches = [load.send([draw_valid_image(source), one, draw_valid_image(source)]) for one in poison]
    for sent in batches:
        wait_until(lambda sent=sent: is_closed(stack, sent), 120, "a batch with a poison ends")  # type: ignore[misc]
    assert time.monotonic() - began < 120
    verdict = verify(stack, load)
    assert verdict.problems == []
    assert verdict.poison == 3


def test_nothing_is_lost_or_doubled_under_kills_at_every_step_and_at_random(stack: FaultStack, load: UploadLoad) -> None:
    for point in FAILPOINTS:
        stack.plan.kill_at(point)
    load.start()
    wait_until(lambda: set(stack.plan.killed()) == set(FAILPOINTS), 600, "every step is reached")
    at_steps = len(stack.plan.killed())
    chaos = FaultInjector(stack, SEED)
    wanted = FaultCounts(kills=at_steps + 10, flushes=2, mongo_kills=1, redis_others=1, disk_fills=1)
    last = chaos.run(wanted, pause_s=1.0, limit_s=400)
    wait_until_terminal(stack, load, last)
    verdict = verify(stack, load)
    assert verdict.problems == []
    assert verdict.lost == verdict.doubled == verdict.innocents_failed == verdict.files_wrong == 0
    assert chaos.kills() >= at_steps + 10
    assert chaos.missing(wanted) == {}


def test_the_oracle_sees_what_was_tampered_with(stack: FaultStack, load: UploadLoad) -> None:
    """Last of all: an oracle that finds nothing wrong here would prove nothing above."""
    batches = [load.send(draw_valid_images(f"{SEED} {number}", 4)) for number in range(5)]
    wait_until(lambda: all(is_closed(stack, sent) for sent in batches), 240, "they end")
    # As long as a spool is there the sweep mends an original from it.
    wait_until(lambda: all(stack.blobs.stat(spool_key(sent.batch_id)) is None for sent in batches), 240, "their spools are deleted")
    of_a_batch = {"$group": {"_id": "$batch_id", "image": {"$first": "$$ROOT"}}}
    ids = [sent.batch_id for sent in batches]
    good_jpegs = {"$match": {"batch_id": {"$in": ids}, "status": "done", "content_type": "image/jpeg"}}
    rows = stack.db.images.aggregate([good_jpegs, of_a_batch, {"$limit": 5}])
    removed, again, failed, broken, stranger = (row["image"] for row in rows)
    stack.db.images.delete_one({"_id": removed["_id"]})
    for status in ("queued", "done"):  # a second result
        stack.db.images.update_one({"_id": again["_id"]}, {"$set": {"status": status}})
    stack.db.images.update_one(
        {"_id": failed["_id"]}, {"$set": {"status": "failed", "error": {"code": "corrupt", "detail": ""}}}
    )
    stack.blobs.write(original_key(broken["_id"], "jpg"), [b"other bytes"])
    header = stack.db.batches.find_one({"_id": stranger["batch_id"]})
    assert header is not None
    stack.db.batches.insert_one({**header, "_id": "f" * 32})
    verdict = verify(stack, load)
    assert verdict.lost == 1
    assert verdict.doubled >= 2
    assert verdict.innocents_failed == 1
    assert verdict.files_wrong >= 1
    text = "\n".join(verdict.problems)
    for sign in (removed["batch_id"], again["_id"], failed["_id"], broken["_id"], "f" * 32, "does not balance"):
        assert sign in text
