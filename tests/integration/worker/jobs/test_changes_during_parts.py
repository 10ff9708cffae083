"""What others change while a part of a job changes the same images is kept, and no image is skipped."""

import contextlib
import random
import threading

import pytest

from shared import failpoints
from shared.catalog import (
    bulk_tags,
    image_deletion,
    image_metadata,
    image_tags,
    retired_tags,
    tag_changes,
)
from shared.catalog.tag_changes import Change
from shared.jobs import claims
from shared.jobs.progress import HeldJob
from shared.ledger import tag_counts
from shared.ledger.filters import Filters
from shared.storage.mongo import Db
from tests.integration.worker.jobs.open_parts import (
    PARTLY,
    PLANNED,
    WRITTEN,
    Died,
    at,
    check,
    die_in_part,
    expire,
    tag,
    tag_id_of,
)
from tests.integration.worker.jobs.tagging import (
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

pytestmark = pytest.mark.usefixtures("tiny_parts")


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
        image_tags.remove(db, ids[6], ["old"], None, None, lambda _: None)
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


def test_an_image_that_a_person_has_changed_after_the_death_is_done_as_it_is_then(db: Db, worker: JobPipeline) -> None:
    ids = make_images(db, 6)
    tag(db, ids, "old")
    job_id = start_job(db, "new", remove=("old",))
    die_in_part(db, PARTLY)  # the first four are written
    tag_now(db, [ids[0], ids[4]], "mine")
    image_tags.remove(db, ids[1], ["new"], None, None, lambda _: None)  # nobody can know that the job has changed this image before
    image_metadata.correct(db, ids[2], None, {"store_name": "south"})
    db.images.delete_one({"_id": ids[3]})
    run(worker)
    assert read_tags(db) == {ids[0]: ["new", "mine"], ids[1]: ["new"], ids[2]: ["new"], ids[4]: ["mine", "new"], ids[5]: ["new"]}
    assert (read_job(db, job_id)["done"], read_job(db, job_id)["changed"]) == (6, 5)
    assert not db.tag_counts.count_documents({"open": {"$gt": 0}})
    assert {row["store"] for row in db.tag_counts.find({"due": True})} == {"north"}
    validate_documents(db)


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))])
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
