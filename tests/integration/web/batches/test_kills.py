"""Processes that are killed at each step of cancelling or reprocessing a batch: it ends whole and once.

Meanwhile, somebody reads the images all the time: an image that has a result is shown with all its files until it has a new one.
"""

import pytest

from tests.faults import programs
from tests.integration.web.batches.changed_batches import (
    AGAIN,
    CHANGES,
    OF_CANCELLING,
    OF_REPROCESSING,
    Scene,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
OF_WORKERS = [
    "4-claimed",
    "5-original-kept",
    "5-looking",
    "5-variants-written",
    "6-before-finish",
    "6-finished",
    "14-files-published",
    "7-before-close",
    "9-before-spool-delete",
]


@pytest.mark.parametrize("point", OF_REPROCESSING)
@pytest.mark.parametrize("by", ["sweep", "client"])
def test_a_reprocessing_whose_web_process_is_killed_is_completed_once(scene: Scene, point: str, by: str) -> None:
    with scene.watched():
        scene.plan.kill_at(point)
        assert scene.change("reprocess", AGAIN) is None
        assert scene.plan.killed() == [point]
        has_begun = point != "13-reprocessing-chosen"
        if by == "client" or not has_begun:
            assert scene.change("reprocess", AGAIN) == 202
        scene.process()
        scene.clean_up()
    scene.check("done", "grayscale", generation=1)
    assert [image["work"]["fence"] for image in scene.images()] == [2, 2]


@pytest.mark.parametrize("point", OF_WORKERS)
def test_images_whose_worker_is_killed_while_it_processes_them_again_are_processed_by_another(scene: Scene, point: str) -> None:
    with scene.watched():
        assert scene.change("reprocess", AGAIN) == 202
        scene.kill(programs.WORKER, point)
        scene.process()
        scene.clean_up()
    scene.check("done", "grayscale", generation=1)


@pytest.mark.parametrize("point", ["4-claimed", "5-variants-written", "6-finished"])
def test_images_whose_worker_is_killed_after_a_cancellation_keep_their_result(scene: Scene, point: str) -> None:
    with scene.watched():
        assert scene.change("reprocess", AGAIN) == 202
        scene.kill(programs.WORKER, point)
        assert scene.change("cancel") == 202
        scene.process()
        scene.clean_up()
    scene.check("done", "grayscale" if point == "6-finished" else "rotate", generation=1)


@pytest.mark.parametrize("point", ["5-original-kept", "5-variants-written"])
def test_new_images_whose_worker_is_killed_end_cancelled_without_files(fresh: Scene, point: str) -> None:
    fresh.kill(programs.WORKER, point)
    assert fresh.change("cancel") == 202
    fresh.process()
    fresh.clean_up()
    fresh.check("cancelled", None, generation=0)


@pytest.mark.parametrize("point", OF_CANCELLING)
@pytest.mark.parametrize("by", ["sweep", "client"])
def test_a_cancellation_whose_web_process_is_killed_is_completed(fresh: Scene, point: str, by: str) -> None:
    fresh.plan.kill_at(point)
    assert fresh.change("cancel") is None
    assert fresh.plan.killed() == [point]
    if by == "client":
        assert fresh.change("cancel") == 202
        assert fresh.change("cancel") == 409
    fresh.process()
    fresh.clean_up()
    fresh.check("cancelled", None, generation=0)
    assert fresh.change("reprocess", {"only": "cancelled"}) == 202
    fresh.process()
    fresh.clean_up()
    fresh.check("done", "rotate", generation=1)


@pytest.mark.parametrize("point", OF_CANCELLING)
def test_a_cancelled_reprocessing_whose_web_process_is_killed_leaves_the_old_results(scene: Scene, point: str) -> None:
    with scene.watched():
        assert scene.change("reprocess", AGAIN) == 202
        scene.plan.kill_at(point)
        assert scene.change("cancel") is None
        scene.process()
        scene.clean_up()
    scene.check("done", "rotate", generation=1)


@pytest.mark.parametrize("point", ["13-reprocessing-queued", "13-reprocessing-unmarked"])
def test_a_reprocessing_whose_sweep_is_killed_too_is_completed_once(scene: Scene, point: str) -> None:
    with scene.watched():
        scene.plan.kill_at("13-reprocessing-marked")
        assert scene.change("reprocess", AGAIN) is None
        scene.kill(programs.SWEEP, point)
        scene.process()
        scene.clean_up()
    scene.check("done", "grayscale", generation=1)
    assert [image["work"]["fence"] for image in scene.images()] == [2, 2]


def test_a_cancellation_whose_sweep_is_killed_too_is_completed(fresh: Scene) -> None:
    fresh.plan.kill_at("12-cancellation-marked")
    assert fresh.change("cancel") is None
    fresh.kill(programs.SWEEP, "12-cancellation-ended")
    fresh.process()
    fresh.clean_up()
    fresh.check("cancelled", None, generation=0)


@pytest.mark.parametrize("point", ["9-before-spool-delete", "14-files-published", "14-before-old-files-deleted", "14-old-files-deleted"])
def test_old_files_whose_clean_up_is_killed_are_deleted_later(scene: Scene, point: str) -> None:
    with scene.watched():
        assert scene.change("reprocess", AGAIN) == 202
        scene.process()
        scene.finish_earlier()
        scene.kill(programs.SWEEP, point)
        scene.clean_up()
    scene.check("done", "grayscale", generation=1)


@pytest.mark.parametrize("point", OF_REPROCESSING[1:])
@pytest.mark.parametrize("change", CHANGES)
def test_a_batch_whose_reprocessing_was_interrupted_is_changed(scene: Scene, point: str, change: str) -> None:
    with scene.watched(deleted=scene.deleted_by(change)):
        scene.plan.kill_at(point)
        assert scene.change("reprocess", AGAIN) is None
        scene.make(change)
        scene.process()
        scene.clean_up()
    scene.check_changed(change)
