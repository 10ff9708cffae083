"""A part of a job that its worker has not ended, or during which others change the images, still changes each image once."""

import contextlib
import random
import threading
from collections.abc import Callable, Iterator

import pytest
from pymongo.errors import AutoReconnect

from shared import failpoints, settings
from shared.bootstrap import open_stores
from shared.catalog import (
    bulk_edits,
    bulk_parts,
    bulk_tags,
    bulk_undo,
    image_deletion,
    image_metadata,
    image_tags,
    retired_tags,
    tag_changes,
    tags,
)
from shared.catalog.tag_changes import Change
from shared.errors import StoreAway
from shared.jobs import claims, progress, records
from shared.jobs.progress import HeldJob, JobLost, Step
from shared.jobs.records import ALL_JOBS
from shared.ledger import tag_counts
from shared.ledger.filters import Filters
from shared.storage.mongo import Db, Document
from tests.integration.worker.jobs.tagging import (
    check_counts,
    each,
    make_images,
    read_job,
    read_tags,
    run,
    start_job,
    start_undo,
    tag_now,
)
from tests.support.ledger import validate_documents
from worker.jobs.pipeline import JobPipeline
from worker.sweep import jobs as job_sweep

PLANNED, PARTLY, WRITTEN = (f"10-bulk-part-{name}" for name in ("planned", "partly-written", "written"))


class Died(BaseException):
    """The worker has died."""


@pytest.fixture(autouse=True)
def _parts(small_parts: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A part has 10 images, of which 4 are written at once, and 2 of a rest."""
    monkeypatch.setattr(bulk_parts, "_IN_COMMAND", 4)
    monkeypatch.setattr(progress, "MAX_REST", 2)
    yield
    failpoints.install(None)


def at(point: str, act: Callable[[], object]) -> None:
    """Do something when a part reaches a point for the first time."""
    left = [act]

    def hook(name: str) -> None:
        if name == point and left:
            left.pop()()

    failpoints.install(hook)


def die() -> None:
    raise Died


def do_part(db: Db, do: Callable[[Db, HeldJob], Step] = bulk_tags.do_part) -> None:
    """Claim the next job, and do a part of it."""
    claimed = claims.claim(db, "mortal", 60)
    assert claimed is not None
    do(db, HeldJob("mortal", claimed))


def die_in_part(db: Db, point: str, do: Callable[[Db, HeldJob], Step] = bulk_tags.do_part) -> None:
    """Let a worker die at a point of a part, and its lease expire."""
    at(point, die)
    with pytest.raises(Died):
        do_part(db, do)
    expire(db)


def expire(db: Db) -> None:
    db.jobs.update_many({"status": "processing"}, [{"$set": {"lease_until": {"$subtract": ["$$NOW", 1]}}}])
    claims.expire_leases(db)


def check(db: Db, *, is_due: bool) -> None:
    """Check that no part is open, and that all counts are right, although some of them may be due."""
    assert not db.tag_counts.count_documents({"open": {"$ne": 0, "$exists": True}})
    assert bool(db.tag_counts.count_documents({"due": True})) is is_due
    assert not db.jobs.count_documents({"$or": [{"open_change": {"$exists": True}}, {"rest": {"$exists": True}}]})
    assert not db.job_changes.count_documents({"plan": {"$exists": True}})
    check_counts(db)
    validate_documents(db)


def tag(db: Db, ids: list[str], *add: str, remove: tuple[str, ...] = ()) -> None:
    """Tag images in requests."""
    for start in range(0, len(ids), 4):
        tag_now(db, ids[start : start + 4], *add, remove=remove)


def revisions(db: Db) -> set[int]:
    return {row.get("revision") or 0 for row in db.images.find({"status": {"$ne": "deleting"}}, {"revision": 1})}


def tag_id_of(db: Db, name: str) -> str:
    (tag_id,) = tags.find_ids(db, name)
    return tag_id


@pytest.mark.parametrize(("point", "written"), [(PLANNED, 0), (PARTLY, 4), (WRITTEN, 10)])
def test_a_part_whose_worker_died_changes_each_image_once_and_is_undone_whole(db: Db, worker: JobPipeline, point: str, written: int) -> None:
    ids = make_images(db, 25)
    tag(db, ids[::2], "old")
    before, revised = read_tags(db), {row["_id"]: row.get("revision") or 0 for row in db.images.find()}
    job_id = start_job(db, "new", remove=("old",))
    die_in_part(db, point)
    assert list(read_tags(db).values()).count(["new"]) == written
    validate_documents(db)
    run(worker)
    job = read_job(db, job_id)
    assert (job["status"], job["total"], job["done"], job["changed"]) == ("done", 25, 25, 25)
    assert read_tags(db) == each(ids, "new")
    assert {row["_id"]: row["revision"] - revised[row["_id"]] for row in db.images.find()} == dict.fromkeys(ids, 1)
    assert sorted(image["id"] for change in db.job_changes.find() for image in change["images"]) == ids
    check(db, is_due=True)
    undo_id = start_undo(db, job_id)
    die_in_part(db, point, bulk_undo.do_part)
    run(worker)
    assert (read_job(db, undo_id)["done"], read_job(db, undo_id)["changed"]) == (25, 25)
    assert read_tags(db) == before
    check(db, is_due=True)


def test_counts_are_never_too_small_while_a_part_is_open(db: Db, worker: JobPipeline) -> None:
    ids = make_images(db, 8)
    tag_now(db, ids[:3], "old")
    start_job(db, "new", remove=("old",))
    seen: list[dict[str, tuple[int, int]]] = []

    def look() -> None:
        counts = {row["tag"]: (row["n"], row["open"]) for row in db.tag_counts.find()}
        seen.append({name: counts[tag_id_of(db, name)] for name in ("new", "old")})
        with db.client.start_session() as session:
            assert tag_counts.is_used_outside(db, session, [tag_id_of(db, "new")], frozenset({"south"}))

    at(PLANNED, look)
    run(worker)
    assert seen == [{"new": (8, 1), "old": (3, 1)}]
    check(db, is_due=False)


@pytest.mark.parametrize("point", [PLANNED, PARTLY])
def test_what_people_change_during_a_part_is_kept_and_nothing_is_skipped(db: Db, worker: JobPipeline, point: str) -> None:
    ids = make_images(db, 10)
    tag(db, ids, "old")
    job_id = start_job(db, "new", remove=("old",))

    def interfere() -> None:
        image_metadata.correct(db, ids[4], None, {"store_name": "south"})
        image_deletion.begin_delete(db, ids[5], None)
        image_tags.remove(db, ids[6], ["old"], None, lambda _: None)
        image_tags.add(db, ids[7], ["mine"], None, "bob", lambda _: None)
        tag_now(db, [ids[8]], "new", remove=("old",))
        image_metadata.correct(db, ids[9], None, {"camera_id": "other"})

    at(point, interfere)
    run(worker)
    job = read_job(db, job_id)
    assert (job["status"], job["done"], job["changed"]) == ("done", 10, 8)
    assert read_tags(db) == each(ids, "new") | {ids[5]: [], ids[7]: ["mine", "new"]}
    assert len(list(db.job_changes.find())) == 4  # the part, and three of its rest
    live = db.images.find({"status": {"$ne": "deleting"}})
    assert sum(db_count["n"] for db_count in db.tag_counts.find({"tag": tag_id_of(db, "new")})) == len(list(live))
    start_undo(db, job_id)
    run(worker)
    # One whose tag was removed by a person does not get it back, and one that a person has tagged keeps the tag.
    assert read_tags(db) == each(ids, "old") | {ids[5]: [], ids[6]: [], ids[7]: ["old", "mine"], ids[8]: ["new"]}
    check(db, is_due=True)


def test_images_that_no_longer_match_are_left(db: Db, worker: JobPipeline) -> None:
    ids = make_images(db, 10, camera_id="a")
    start_job(db, "new", filters=Filters(camera_id="a"))
    at(PLANNED, lambda: image_metadata.correct(db, ids[3], None, {"camera_id": "b"}))
    run(worker)
    assert read_tags(db) == each(ids, "new") | each([ids[3]])
    check(db, is_due=False)


@pytest.mark.parametrize("point", [PLANNED, WRITTEN])
def test_a_tag_that_is_deleted_or_merged_during_a_part_is_cleaned_up(db: Db, worker: JobPipeline, point: str) -> None:
    ids = make_images(db, 10)
    tag_now(db, ids[:2], "target")
    start_job(db, "merged", "deleted")

    def change() -> None:
        tag_changes.change(db, "merged", Change(name="target", merge=True), None)
        tag_changes.delete(db, "deleted", None)

    at(point, change)
    run(worker)
    for tag_id in retired_tags.find(db, 9):
        while retired_tags.clean_images(db, tag_id):
            pass
    assert read_tags(db) == each(ids, "target")
    check(db, is_due=False)


def test_a_worker_that_loses_the_lease_stops_before_the_next_command(db: Db, worker: JobPipeline) -> None:
    ids = make_images(db, 10)
    start_job(db, "new")
    at(PARTLY, lambda: expire(db))
    with pytest.raises(JobLost):
        do_part(db)
    assert list(read_tags(db).values()).count(["new"]) == 4
    run(worker)
    assert read_tags(db) == each(ids, "new")
    assert revisions(db) == {1}
    check(db, is_due=True)


def test_a_worker_that_has_lost_the_lease_after_the_last_command_settles_nothing(db: Db, worker: JobPipeline) -> None:
    ids = make_images(db, 10)
    job_id = start_job(db, "new")

    def take_over() -> None:
        expire(db)
        failpoints.install(None)
        run(worker)

    at(WRITTEN, take_over)
    with pytest.raises(JobLost):
        do_part(db)
    assert (read_job(db, job_id)["status"], read_job(db, job_id)["changed"]) == ("done", 10)
    assert read_tags(db) == each(ids, "new")
    check(db, is_due=True)


def test_a_command_of_a_worker_that_was_frozen_changes_no_image_that_the_job_or_its_undo_has_changed(db: Db, worker: JobPipeline) -> None:
    ids = make_images(db, 5)
    job_id = start_job(db, "new")
    real = bulk_edits.write_unchanged
    delayed: list[Callable[[], int]] = []

    def delay(*arguments: object) -> int:
        delayed.append(lambda: real(*arguments))  # type: ignore[arg-type]
        raise Died

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bulk_edits, "write_unchanged", delay)
        with pytest.raises(Died):
            do_part(db)
    expire(db)
    run(worker)
    assert delayed[0]() == 0
    start_undo(db, job_id)
    run(worker)
    assert delayed[0]() == 0
    assert read_tags(db) == each(ids)
    check(db, is_due=True)


def test_an_error_after_a_command_was_executed_is_found_out(db: Db, worker: JobPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = make_images(db, 10)
    job_id = start_job(db, "new")
    real = bulk_edits.write_unchanged

    def fail(*arguments: object) -> int:
        real(*arguments)  # type: ignore[arg-type]
        raise AutoReconnect("the answer was lost")

    with monkeypatch.context() as patch:
        patch.setattr(bulk_edits, "write_unchanged", fail)
        with pytest.raises(StoreAway):
            do_part(db)
    expire(db)
    run(worker)
    assert (read_job(db, job_id)["changed"], revisions(db)) == (10, {1})
    assert read_tags(db) == each(ids, "new")
    check(db, is_due=True)


@pytest.mark.parametrize(("point", "written"), [(PLANNED, 0), (PARTLY, 4)])
@pytest.mark.parametrize("sweeps", [True, False])
def test_a_job_that_ends_with_an_open_part_is_settled_and_undone_as_far_as_it_came(
    db: Db, mongo: settings.Mongo, redis_url: str, worker: JobPipeline, point: str, written: int, *, sweeps: bool
) -> None:
    ids = make_images(db, 25)
    job_id = start_job(db, "new")
    die_in_part(db, point)
    assert records.cancel(db, job_id, ALL_JOBS)["status"] == "cancelled"
    if sweeps:
        assert progress.find_unsettled(db, 5) == [job_id]
        stores = open_stores(settings.Settings(mongo=mongo, redis=settings.Redis(url=redis_url)), app="test", db=db)
        assert job_sweep.repair(stores)
        for publisher in stores.wakeups.values():
            publisher.close()
        assert not progress.find_unsettled(db, 5)
        assert read_job(db, job_id)["changed"] == written
        check(db, is_due=True)
    start_undo(db, job_id)
    run(worker)
    assert read_tags(db) == each(ids)
    assert read_job(db, job_id)["changed"] == written
    check(db, is_due=True)


def test_a_part_that_was_begun_by_a_job_whose_rights_are_lost_is_settled(db: Db, worker: JobPipeline) -> None:
    make_images(db, 10)
    job_id = start_job(db, "new")
    die_in_part(db, PARTLY)
    db.jobs.update_one({"_id": job_id}, {"$set": {"actor": "user:nobody"}})
    run(worker)
    job = read_job(db, job_id)
    assert (job["status"], job["error"]["code"], job["changed"]) == ("failed", "rights_lost", 4)
    db.jobs.update_one({"_id": job_id}, {"$unset": {"rest": ""}})
    check(db, is_due=True)


def test_an_image_that_a_person_has_changed_after_the_death_is_done_as_it_is_then(db: Db, worker: JobPipeline) -> None:
    ids = make_images(db, 6)
    tag(db, ids, "old")
    job_id = start_job(db, "new", remove=("old",))
    die_in_part(db, PARTLY)  # the first four are written
    tag_now(db, [ids[0], ids[4]], "mine")
    image_tags.remove(db, ids[1], ["new"], None, lambda _: None)  # nobody can know that the job has changed this image before
    image_metadata.correct(db, ids[2], None, {"store_name": "south"})
    db.images.delete_one({"_id": ids[3]})
    run(worker)
    assert read_tags(db) == {ids[0]: ["new", "mine"], ids[1]: ["new"], ids[2]: ["new"], ids[4]: ["mine", "new"], ids[5]: ["new"]}
    assert (read_job(db, job_id)["done"], read_job(db, job_id)["changed"]) == (6, 5)
    assert not db.tag_counts.count_documents({"open": {"$gt": 0}})
    assert {row["store"] for row in db.tag_counts.find({"due": True})} == {"north"}
    validate_documents(db)


@pytest.mark.parametrize("seed", range(3))
def test_whatever_people_do_and_whoever_dies_each_image_is_tagged_once(db: Db, worker: JobPipeline, seed: int) -> None:
    chance = random.Random(seed)
    ids = [*make_images(db, 30), *make_images(db, 30, "south")]
    tag(db, ids[::3], "old")
    job_id = start_job(db, "new", remove=("old",))
    people = random.Random(seed + 100)
    is_over = threading.Event()

    def act() -> None:
        while not is_over.wait(0.002):
            image_id = people.choice(ids)
            kind = people.randrange(4)
            if kind == 0:
                tag_now(db, [image_id], "mine")
            elif kind == 1:
                tag_now(db, [image_id], remove=("mine", "old"))
            elif kind == 2:
                image_metadata.correct(db, image_id, None, {"store_name": people.choice(["north", "south", "west"])})
            else:
                image_metadata.correct(db, image_id, None, {"camera_id": people.choice("abc")})

    person = threading.Thread(target=act)
    person.start()
    try:
        _do_with_deaths(db, job_id, chance)
    finally:
        is_over.set()
        person.join()
    run(worker)
    job = read_job(db, job_id)
    assert (job["status"], job["done"]) == ("done", 60)
    assert {name: names for name, names in read_tags(db).items() if "new" not in names or "old" in names} == {}
    changed = [image["id"] for change in db.job_changes.find() for image in change["images"]]
    assert len(changed) == len(set(changed)) == job["changed"]
    assert set(changed) == set(ids)  # nobody removes the tag of the job, so this is always known
    check(db, is_due=bool(db.tag_counts.count_documents({"due": True})))


def _do_with_deaths(db: Db, job_id: str, chance: random.Random) -> None:
    """Do parts of a job, in which the worker dies at random points, until all of its images are done."""

    def hook(name: str) -> None:
        if name in (PLANNED, PARTLY, WRITTEN) and chance.random() < 0.2:
            raise Died

    while read_job(db, job_id)["done"] < 60:
        failpoints.install(hook)
        claimed = claims.claim(db, "mortal", 60)
        assert claimed is not None
        job: HeldJob | None = HeldJob("mortal", claimed)
        with contextlib.suppress(Died):
            while job is not None:
                job = bulk_tags.do_part(db, job).job
        expire(db)
        failpoints.install(None)


OURS, THEIRS = {"id": "a", "by": "anna", "at": 7}, {"id": "a", "by": "bob", "at": 7}


@pytest.mark.parametrize(
    ("image", "plus", "minus", "expected"),
    [
        (None, "a", "", None),
        ({"revision": 4, "updated_at": 9, "tags": []}, "a", "", False),
        ({"revision": 5, "updated_at": 7, "tags": [OURS]}, "ab", "", True),
        ({"revision": 5, "updated_at": 7, "tags": [THEIRS]}, "a", "b", True),
        ({"revision": 5, "updated_at": 7, "tags": []}, "", "a", True),
        ({"revision": 5, "updated_at": 7, "tags": []}, "a", "", False),
        ({"revision": 5, "updated_at": 7, "tags": [OURS]}, "b", "", False),
        ({"revision": 5, "updated_at": 9, "tags": []}, "a", "", False),
        ({"revision": 5, "updated_at": 9, "tags": [THEIRS]}, "a", "", None),
        ({"revision": 5, "updated_at": 9, "tags": [THEIRS]}, "", "a", False),
        ({"revision": 5, "updated_at": 9, "tags": []}, "", "a", None),
        ({"revision": 6, "updated_at": 7, "tags": []}, "a", "", None),
        ({"revision": 6, "updated_at": 9, "tags": [OURS]}, "a", "", True),
        ({"revision": 6, "updated_at": 9, "tags": [THEIRS]}, "", "a", None),
        ({"revision": 4, "updated_at": 7, "tags": [], "status": "deleting"}, "a", "", False),
        ({"revision": 5, "updated_at": 7, "tags": [], "status": "deleting"}, "a", "", True),
        ({"revision": 5, "updated_at": 9, "tags": [], "status": "deleting"}, "a", "", None),
    ],
)
def test_an_image_says_whether_a_part_has_changed_it(image: Document | None, plus: str, minus: str, *, expected: bool | None) -> None:
    edit = {"revision": 4, "plus": list(plus), "minus": list(minus)}
    stored = None if image is None else {"status": "done"} | image
    assert bulk_parts.was_changed(stored, edit, {"by": "anna", "at": 7}) is expected
