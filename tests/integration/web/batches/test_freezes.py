"""Processes that are frozen at each step of cancelling or reprocessing a batch, and continue when others have done the rest.

They change nothing then. Meanwhile, somebody reads the images all the time, as in ``test_kills``.
"""


import pytest

from tests.faults import programs
from tests.integration.web.batches.changed_batches import AGAIN, CHANGES, OF_CANCELLING, OF_REPROCESSING, Scene

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
BEGUN = OF_REPROCESSING[1:]


@pytest.mark.parametrize("point", BEGUN)
def test_a_late_request_to_reprocess_queues_nothing_again(scene: Scene, point: str) -> None:
    with scene.watched():
        with scene.frozen_request(point, "reprocess", AGAIN):
            scene.process()
            scene.clean_up()
            before = scene.state()
        assert scene.answers.pop() == 202
        assert scene.state() == before
    scene.check("done", "grayscale", generation=1)


@pytest.mark.parametrize("point", BEGUN)
def test_a_late_request_does_not_touch_what_was_requested_after_it(scene: Scene, point: str) -> None:
    with scene.watched():
        with scene.frozen_request(point, "reprocess", AGAIN):
            scene.process()
            assert scene.change("reprocess", {"only": "all", "augmentations": ["rotate"]}) == 202
            before = scene.images()
        assert scene.answers.pop() == 202
        assert scene.images() == before
        scene.process()
        scene.clean_up()
    scene.check("done", "rotate", generation=2)


def test_a_request_that_chose_its_images_before_another_one_chooses_again(scene: Scene) -> None:
    with scene.watched():
        with scene.frozen_request(OF_REPROCESSING[0], "reprocess", AGAIN):
            assert scene.change("reprocess", {"only": "all", "augmentations": ["gaussian_blur"]}) == 202
            scene.process()
        assert scene.answers.pop() == 202
        scene.process()
        scene.clean_up()
    scene.check("done", "grayscale", generation=2)


@pytest.mark.parametrize("point", OF_REPROCESSING)
def test_a_reprocessing_that_is_cancelled_between_its_steps_leaves_the_old_results(scene: Scene, point: str) -> None:
    has_begun = point in BEGUN
    with scene.watched():
        with scene.frozen_request(point, "reprocess", AGAIN):
            assert scene.change("cancel") == (202 if has_begun else 409)
            before = scene.images()
            assert {image["status"] for image in before} == {"done"}
        assert scene.answers.pop() == 202
        if has_begun:
            assert scene.images() == before
        scene.process()
        scene.clean_up()
    scene.check("done", "rotate" if has_begun else "grayscale", generation=1)


@pytest.mark.parametrize("point", BEGUN)
def test_the_same_request_twice_at_once_queues_each_image_once(scene: Scene, point: str) -> None:
    with scene.watched():
        with scene.frozen_request(point, "reprocess", AGAIN):
            assert scene.change("reprocess", AGAIN) == 202
        assert scene.answers.pop() == 202
        scene.process()
        scene.clean_up()
    scene.check("done", "grayscale", generation=1)
    assert [image["work"]["fence"] for image in scene.images()] == [2, 2]


@pytest.mark.parametrize("point", OF_CANCELLING)
def test_a_late_request_to_cancel_ends_nothing_that_was_queued_after_it(fresh: Scene, point: str) -> None:
    with fresh.frozen_request(point, "cancel"):
        fresh.tick()
        assert fresh.change("reprocess", {"only": "cancelled"}) == 202
        before = fresh.images()
        assert {image["status"] for image in before} == {"queued"}
    assert fresh.answers.pop() == 202
    assert fresh.images() == before
    fresh.process()
    fresh.clean_up()
    fresh.check("done", "rotate", generation=1)


@pytest.mark.parametrize("point", OF_CANCELLING)
def test_a_reprocessing_is_refused_while_the_batch_is_being_cancelled(scene: Scene, point: str) -> None:
    with scene.watched():
        assert scene.change("reprocess", AGAIN) == 202
        with scene.frozen_request(point, "cancel"):
            assert scene.change("reprocess", AGAIN) == 409
            assert scene.change("cancel") == 202
        assert scene.answers.pop() == 202
        scene.process()
        scene.clean_up()
    scene.check("done", "rotate", generation=1)


@pytest.mark.parametrize("point", [*BEGUN[:2], OF_CANCELLING[0]])
@pytest.mark.parametrize("change", CHANGES)
def test_a_batch_is_changed_between_the_steps_of_a_request(scene: Scene, point: str, change: str) -> None:
    is_cancelled = point in OF_CANCELLING
    with scene.watched(deleted=scene.deleted_by(change)):
        if is_cancelled:
            assert scene.change("reprocess", AGAIN) == 202
        with scene.frozen_request(point, *(("cancel",) if is_cancelled else ("reprocess", AGAIN))):
            scene.make(change)
        assert scene.answers.pop() == 202
        scene.process()
        scene.clean_up()
    scene.check_changed(change, "rotate" if is_cancelled else "grayscale")


@pytest.mark.parametrize(
    ("point", "writes"),
    [("4-claimed", True), ("5-variants-written", False), ("6-finished", False), ("14-files-published", False), ("9-before-spool-delete", False)],
    ids=["4-claimed", "5-variants-written", "6-finished", "14-files-published", "9-before-spool-delete"],
)
def test_a_late_worker_changes_nothing_that_is_shown(scene: Scene, point: str, *, writes: bool) -> None:
    with scene.watched():
        assert scene.change("reprocess", AGAIN) == 202
        scene.plan.stop_at(point)
        worker = scene.start(programs.WORKER)
        with scene.frozen(point):
            scene.process()
            assert scene.change("reprocess", {"only": "all", "augmentations": ["gaussian_blur"]}) == 202
            scene.process()
            scene.clean_up()
            before = scene.state()
        assert worker.wait(120) == 0
        after = scene.state()
        if writes:  # into a folder that is not shown. A worker that waits for so long is killed by its time limit.
            assert (after[:2], after[3]) == (before[:2], before[3])
            assert all(shown <= found for shown, found in zip(before[2], after[2], strict=True))
            return
        assert after == before
    scene.check("done", "gaussian_blur", generation=2)


@pytest.mark.parametrize("point", ["9-before-spool-delete", "14-files-published", "14-before-old-files-deleted", "14-old-files-deleted"])
def test_a_late_sweep_leaves_what_was_processed_after_it(scene: Scene, point: str) -> None:
    with scene.watched():
        assert scene.change("reprocess", AGAIN) == 202
        scene.process()
        scene.finish_earlier()
        scene.plan.stop_at(point)
        sweep = scene.start(programs.SWEEP)
        with scene.frozen(point):
            assert scene.change("reprocess", {"only": "all", "augmentations": ["gaussian_blur"]}) == 202
            scene.process()
            shown = [image["shown"]["fence"] for image in scene.images()]
        assert sweep.wait(120) == 0
        assert scene.links() == [str(fence) for fence in shown]
        assert all(str(fence) in found for fence, found in zip(shown, scene.folders(), strict=True))
        scene.clean_up()
    scene.check("done", "gaussian_blur", generation=2)
