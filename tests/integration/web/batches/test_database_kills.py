"""MongoDB is killed at each step of cancelling or reprocessing a batch, and started again: the batch ends whole and once.

At the step, the process that has reached it is frozen, so that it finds its connections broken when it continues.
"""

from collections.abc import Callable, Iterator

import pytest

from scripts.local.temporary_servers import Mongod
from shared import settings
from shared.storage.migrations import runner
from shared.storage.mongo import connect
from tests.faults import programs
from tests.integration.web.batches.changed_batches import (
    AGAIN,
    OF_CANCELLING,
    OF_REPROCESSING,
    Scene,
    run_scene,
)
from worker.vision.detection import detect

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
OF_WORKERS = ["4-claimed", "5-variants-written", "6-before-finish", "6-finished", "14-files-published", "7-before-close"]
OF_SWEEPS = ["14-before-old-files-deleted", "14-old-files-deleted"]
AWAY = 503


@pytest.fixture(scope="module")
def mongod(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mongod]:
    with Mongod(tmp_path_factory.mktemp("killed") / "mongod") as server:
        yield server


@pytest.fixture(scope="module")
def shared_scene(mongod: Mongod, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    mongo = settings.Mongo(url=mongod.url, database="killed")
    db = connect(mongo, app="test")
    runner.migrate(db)
    with run_scene(mongo, db, tmp_path_factory.mktemp("kills"), detect.load()) as scene:
        yield scene
    db.client.close()


@pytest.fixture
def kill_mongodb(mongod: Mongod) -> Callable[[], None]:
    def kill() -> None:
        mongod.kill()
        mongod.start()

    return kill


@pytest.mark.parametrize("point", OF_REPROCESSING)
def test_a_reprocessing_is_completed_once(scene: Scene, point: str, kill_mongodb: Callable[[], None]) -> None:
    with scene.watched():
        with scene.frozen_request(point, "reprocess", AGAIN):
            kill_mongodb()
        answer = scene.answers.pop()
        assert answer in {202, AWAY}
        if answer == AWAY:
            assert scene.change("reprocess", AGAIN) == 202
        scene.process()
        scene.clean_up()
    scene.check("done", "grayscale", generation=1)
    assert [image["work"]["fence"] for image in scene.images()] == [2, 2]


@pytest.mark.parametrize("point", OF_CANCELLING)
def test_a_cancellation_is_completed(fresh: Scene, point: str, kill_mongodb: Callable[[], None]) -> None:
    with fresh.frozen_request(point, "cancel"):
        kill_mongodb()
    answer = fresh.answers.pop()
    assert answer in {202, AWAY}
    if answer == AWAY:
        assert fresh.change("cancel") in {202, 409}
    fresh.process()
    fresh.clean_up()
    fresh.check("cancelled", None, generation=0)
    assert fresh.change("reprocess", {"only": "cancelled"}) == 202
    fresh.process()
    fresh.clean_up()
    fresh.check("done", "rotate", generation=1)


@pytest.mark.parametrize("point", OF_CANCELLING)
def test_the_cancellation_of_a_reprocessing_leaves_the_old_results(scene: Scene, point: str, kill_mongodb: Callable[[], None]) -> None:
    with scene.watched():
        assert scene.change("reprocess", AGAIN) == 202
        with scene.frozen_request(point, "cancel"):
            kill_mongodb()
        answer = scene.answers.pop()
        assert answer in {202, AWAY}
        if answer == AWAY:
            assert scene.change("cancel") in {202, 409}
        scene.process()
        scene.clean_up()
    scene.check("done", "rotate", generation=1)


@pytest.mark.parametrize("point", OF_WORKERS)
def test_images_that_a_worker_processes_again_get_one_new_result(scene: Scene, point: str, kill_mongodb: Callable[[], None]) -> None:
    with scene.watched():
        assert scene.change("reprocess", AGAIN) == 202
        scene.plan.stop_at(point)
        worker = scene.start(programs.WORKER)
        with scene.frozen(point):
            kill_mongodb()
        worker.wait(120)  # it may end with an error, as if it was replaced
        scene.process()
        scene.clean_up()
    scene.check("done", "grayscale", generation=1)


@pytest.mark.parametrize("point", OF_SWEEPS)
def test_the_files_of_old_results_are_deleted_and_no_others(scene: Scene, point: str, kill_mongodb: Callable[[], None]) -> None:
    with scene.watched():
        assert scene.change("reprocess", AGAIN) == 202
        scene.process()
        scene.finish_earlier()
        scene.plan.stop_at(point)
        sweep = scene.start(programs.SWEEP)
        with scene.frozen(point):
            kill_mongodb()
        assert sweep.wait(120) == 0
        scene.clean_up()
    scene.check("done", "grayscale", generation=1)
