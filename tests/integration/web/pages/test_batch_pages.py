"""The start page and the page of a batch, while images are processed for the first time and again."""

import re

import pytest
from flask.testing import FlaskClient

from shared.ledger import claims, closing, reprocessing, results
from shared.ledger.claims import Claim
from shared.ledger.reprocessing import Options
from shared.storage.mongo import Db
from tests.support.ledger import commit_new_batch, failed_results, process_all, successful_results

_DETECTION = {"label": "Milk", "score": 0.9, "box": [1, 2, 30, 40]}
_MODEL = {"name": "m", "version": "1", "weights_sha256": "a" * 64}


def _claim(db: Db) -> Claim:
    claim = claims.claim(db, "w", 10, 60)
    assert claim.images
    return claim


def _finish(db: Db, claim: Claim, *, fails: bool = False, label: str = "Milk") -> None:
    made = [{"name": "rotate", "params": {}, "file_path": f"/uploads/{claim.images[0]['_id']}/rotate.jpg", "boxes": []}]
    fields = {"width": 60, "height": 50, "detections": [_DETECTION | {"label": label}], "model": _MODEL, "augmentations": made}
    results.finish(db, "w", failed_results(claim) if fails else successful_results(claim, **fields))
    closing.close_batches(db, {image["batch_id"] for image in claim.images})


def _shown(web: FlaskClient, batch_id: str) -> tuple[set[str], list[str], list[str]]:
    """Return which parts of a result are on the page of a batch, the states of its cards, and what the start page shows of its images."""
    html = web.get(f"/batches/{batch_id}").get_data(as_text=True)
    cards = html.partition('<ol class="images">')[2].partition("</ol>")[0]
    parts = {"thumb": "/thumb.jpg", "box": '<rect x="1" y="2" width="29" height="38"/>', "label": ">Milk<", "boxes": "/boxes.jpg", "augmentation": "/rotate.jpg"}
    strip = re.search(r'<span class="strip">(.*?)</span>', web.get("/").get_data(as_text=True))
    assert strip is not None
    strip_images = [tag + (f" {state}" if state else "") for tag, state in re.findall(r'<(img|i)\b(?:[^>]* title="(\w+)")?', strip[1])]
    return {name for name, text in parts.items() if text in cards}, re.findall(r'<span class="state \w+">(\w+)</span>', cards), strip_images


_ALL = {"thumb", "box", "label", "boxes", "augmentation"}


def test_the_pages_show_the_old_result_beside_the_state_until_the_new_one_is_stored(web: FlaskClient, db: Db) -> None:
    batch_id = commit_new_batch(db, 1)
    assert _shown(web, batch_id) == (set(), ["queued"], ["i queued"])
    claim = _claim(db)
    assert _shown(web, batch_id) == (set(), ["processing"], ["i processing"])
    _finish(db, claim)
    assert _shown(web, batch_id) == (_ALL, [], ["img"])
    for fails in (True, False):
        assert reprocessing.reprocess(db, batch_id, {}, Options(), None).queued == 1
        assert _shown(web, batch_id) == (_ALL, ["queued"], ["img queued"])
        claim = _claim(db)
        assert _shown(web, batch_id) == (_ALL, ["processing"], ["img processing"])
        _finish(db, claim, fails=fails)
        assert _shown(web, batch_id) == (_ALL, [], ["img"])
    reprocessing.reprocess(db, batch_id, {}, Options(), None)
    _finish(db, _claim(db), label="Juice")
    assert _shown(web, batch_id) == (_ALL - {"label"}, [], ["img"])


@pytest.mark.parametrize("again", [False, True], ids=["once", "again"])
def test_an_image_without_a_successful_result_has_no_picture(web: FlaskClient, db: Db, *, again: bool) -> None:
    batch_id = commit_new_batch(db, 1)
    _finish(db, _claim(db), fails=True)
    if again:
        reprocessing.reprocess(db, batch_id, {}, Options(), None)
    state = "queued" if again else "failed"
    assert _shown(web, batch_id) == (set(), [state], [f"i {state}"])
    assert "corrupt: <bdi>Broken.</bdi>" in web.get(f"/batches/{batch_id}").get_data(as_text=True)


def test_a_result_of_the_version_before_is_shown(web: FlaskClient, db: Db) -> None:
    batch_id = commit_new_batch(db, 1)
    process_all(db)
    db.images.update_many({}, {"$unset": {"shown": ""}})
    shown = _shown(web, batch_id)
    assert ("thumb" in shown[0], shown[1:]) == (True, ([], ["img"]))
    reprocessing.reprocess(db, batch_id, {}, Options(), None)
    shown = _shown(web, batch_id)
    assert ("thumb" in shown[0], shown[1:]) == (True, (["queued"], ["img queued"]))
