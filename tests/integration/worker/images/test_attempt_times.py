"""What the real pipeline records about its attempts: the steps, in threads and in the sandbox, and how each attempt ended."""

from typing import Any

import pytest
from flask.testing import FlaskClient

from shared.ledger.timelines import STEPS
from shared.storage.mongo import Db
from tests.integration.worker.running import run, run_at_once, upload
from tests.support.ledger import validate_documents
from tests.support.web_client import image_payload, make_image
from worker.images.attempt_times import AttemptTimes
from worker.images.pipeline import ImagePipeline
from worker.sandbox import parent
from worker.sandbox.parent import SandboxKilled

pytestmark = pytest.mark.slow


def attempts(db: Db, image_id: str) -> list[dict[str, Any]]:
    image = db.images.find_one({"_id": image_id})
    assert image is not None
    return list(image["history"]["attempts"])


def test_each_image_has_the_times_of_its_steps(web: FlaskClient, db: Db, pipeline: ImagePipeline) -> None:
    jpeg, png, cut = make_image(1, (320, 240)), make_image(2, (320, 240), "PNG"), make_image(3, (320, 240))[:900]
    batch = upload(web, db, {"images": [image_payload(data) for data in (jpeg, png, cut)], "augmentations": ["rotate"]})
    run(pipeline)
    done = [attempts(db, image["id"]) for image in batch["images"][:2]]  # a plain JPEG in a thread, a PNG in the sandbox
    for (attempt,), image in zip(done, batch["images"], strict=False):
        assert (attempt["worker"], attempt["fence"], attempt["outcome"], attempt["code"]) == ("worker-a", 1, "done", None)
        assert tuple(attempt["steps"]) == STEPS
        assert all(milliseconds > 0 for milliseconds in attempt["steps"].values())
        stored = db.images.find_one({"_id": image["id"]})
        assert stored is not None
        assert stored["created_at"] <= attempt["begun"] <= attempt["ended"] <= stored["finished_at"]
    # The model has processed both at once, so each has half of its time.
    assert done[0][0]["steps"]["detect_ms"] == done[1][0]["steps"]["detect_ms"]
    (failed,) = attempts(db, batch["images"][2]["id"])
    assert (failed["outcome"], failed["code"]) == ("failed", "truncated")
    assert failed["detail"]
    assert set(failed["steps"]) <= {"load_ms", "decode_ms"}
    validate_documents(db)


def test_steps_that_were_not_wanted_are_missing(web: FlaskClient, db: Db, pipeline: ImagePipeline) -> None:
    batch = upload(web, db, {"images": [image_payload(make_image(1, (64, 48)))], "detect": False})
    run(pipeline)
    (attempt,) = attempts(db, batch["images"][0]["id"])
    assert set(attempt["steps"]) == {"load_ms", "decode_ms", "finish_ms", "write_ms"}


def test_an_attempt_that_was_released_is_followed_by_one_alone_with_all_steps(
    web: FlaskClient, db: Db, pipeline: ImagePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = upload(web, db, {"images": [image_payload(make_image(1, (64, 48), "PNG"))], "augmentations": []})

    def kill(*_: object) -> Any:
        raise SandboxKilled("The process that decoded the image was killed.")

    with monkeypatch.context() as patch:
        patch.setattr(parent.Sandbox, "run", kill)
        pipeline.process(pipeline.claim_next())
    run_at_once(pipeline, db)
    released, done = attempts(db, batch["images"][0]["id"])
    assert (released["fence"], released["outcome"], released["code"]) == (1, "released", "helper_killed")
    assert (done["fence"], done["outcome"], tuple(done["steps"])) == (2, "done", STEPS)
    assert released["ended"] <= done["begun"]


def test_nothing_is_kept_in_memory_after_the_end_of_the_claims(
    web: FlaskClient, db: Db, pipeline: ImagePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[AttemptTimes] = []
    begin = AttemptTimes.begin

    def record(times: AttemptTimes, images: Any) -> None:
        held.append(times)
        begin(times, images)

    monkeypatch.setattr(AttemptTimes, "begin", record)
    upload(web, db, {"images": [image_payload(make_image(at, (64, 48), "PNG")) for at in range(3)], "augmentations": []})
    run(pipeline)
    assert held
    assert all(times._attempts == {} for times in held)
