"""Files of a batch's images: bytes, ranges, validators, conditions, and missing files."""

import os
from email.utils import formatdate
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from shared.storage.blob_keys import original_key, spool_key, variant_key
from shared.storage.local_blobs import LocalBlobs
from shared.storage.mongo import Db
from tests.support.web_client import image_payload, make_image, post_batch

pytestmark = pytest.mark.slow


def test_an_original_is_served_byte_for_byte_at_once_with_ranges_and_validators(web: FlaskClient) -> None:
    data = make_image(5)
    image = post_batch(web, [image_payload(make_image(4)), image_payload(data)]).get_json()["images"][1]
    whole = web.get(image["file_path"])
    assert whole.data == data
    assert (whole.headers["Content-Type"], whole.headers["X-Content-Type-Options"]) == ("image/jpeg", "nosniff")
    assert "immutable" in whole.headers["Cache-Control"]
    part = web.get(image["file_path"], headers={"Range": "bytes=10-19"})
    assert (part.status_code, part.data, part.headers["Content-Range"]) == (
        206,
        data[10:20],
        f"bytes 10-19/{len(data)}",
    )
    for range_header, begins in (("bytes=-7", len(data) - 7), (f"Bytes=-{len(data) + 1}", 0), (f"bytes=5-{10**19}", 5)):
        part = web.get(image["file_path"], headers={"Range": range_header})
        assert (part.status_code, part.data) == (206, data[begins:])
        assert part.headers["Content-Range"] == f"bytes {begins}-{len(data) - 1}/{len(data)}"
    for ignored in ("lines=0-1", "bytes=0-1,4-5", "junk", "bytes=-", "bytes=5-2"):
        response = web.get(image["file_path"], headers={"Range": ignored})
        assert (response.status_code, response.data) == (200, data)
    for outside in (f"bytes={len(data)}-", "bytes=-0"):
        beyond = web.get(image["file_path"], headers={"Range": outside})
        assert (beyond.status_code, beyond.headers["Content-Range"]) == (416, f"bytes */{len(data)}")
    etag = whole.headers["ETag"]
    for headers in ({}, {"Range": "bytes=0-3"}):
        assert web.get(image["file_path"], headers={"If-None-Match": etag, **headers}).status_code == 304
        changed = web.get(image["file_path"], headers={"If-Match": '"another"', **headers})
        assert (changed.status_code, changed.get_json(force=True)["code"]) == (412, "precondition_failed")
    assert web.get(image["file_path"], headers={"If-Match": etag}).data == data
    for if_range, status in ((etag, 206), ('"another"', 200)):
        assert web.get(image["file_path"], headers={"If-Range": if_range, "Range": "bytes=0-3"}).status_code == status
    head = web.head(image["file_path"], headers={"Range": "bytes=0-9"})  # ranges are for GET only
    assert (head.data, head.headers["Content-Length"]) == (b"", str(len(data)))


def validators_of_nginx(path: Path) -> dict[str, str]:
    """Return the validators that nginx derives from a file."""
    found = path.stat()
    seconds = found.st_mtime_ns // 10**9
    return {"ETag": f'"{seconds:x}-{found.st_size:x}"', "Last-Modified": formatdate(seconds, usegmt=True)}


def validators(web: FlaskClient, path: str) -> dict[str, str]:
    response = web.get(path)
    assert response.status_code == 200
    return {name: response.headers[name] for name in ("ETag", "Last-Modified")}


def test_validators_are_those_of_a_file_server(web: FlaskClient, db: Db, blobs_root: Path) -> None:
    image = post_batch(web, [image_payload()]).get_json()["images"][0]["id"]
    db.images.update_one({"_id": image}, {"$set": {"status": "done", "work.fence": 1}})
    keys = {f"/uploads/{image}.jpg": original_key(image, "jpg"), f"/uploads/{image}/thumb.jpg": variant_key(image, 1, "thumb")}
    for number, (path, key) in enumerate(keys.items()):
        LocalBlobs(blobs_root).write(key, [make_image(number)])
        for nanoseconds in (0, 999_999_999):
            os.utime(blobs_root / key, ns=(0, 1_700_000_000 * 10**9 + nanoseconds))
            assert validators(web, path) == validators_of_nginx(blobs_root / key)
        assert validators(web, path)["ETag"] == f'"6553f100-{len(make_image(number)):x}"'


def test_the_validators_of_an_original_change_once_when_it_leaves_the_spool(web: FlaskClient, blobs_root: Path) -> None:
    data = make_image(5)
    accepted = post_batch(web, [image_payload(make_image(4)), image_payload(data)]).get_json()
    image = accepted["images"][1]
    spool = blobs_root / spool_key(accepted["batch_id"])
    os.utime(spool, (1_700_000_000, 1_700_000_000))
    before = validators(web, image["file_path"])
    assert before == {"ETag": f'"6553f100-{len(data):x}"', "Last-Modified": "Tue, 14 Nov 2023 22:13:20 GMT"}
    LocalBlobs(blobs_root).write(original_key(image["id"], "jpg"), [data])
    after = validators(web, image["file_path"])
    assert after == validators_of_nginx(blobs_root / original_key(image["id"], "jpg"))
    spool.unlink()
    assert validators(web, image["file_path"]) == after
    stale = web.get(image["file_path"], headers={"If-None-Match": before["ETag"]})
    assert (stale.status_code, stale.data) == (200, data)


NOW, SOONER, LATER = (f"Tue, 14 Nov 2023 22:13:{second} GMT" for second in (20, 19, 21))
PART = {"Range": "bytes=0-3"}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"If-Modified-Since": NOW}, 304),
        ({"If-Modified-Since": LATER}, 304),
        ({"If-Modified-Since": SOONER}, 200),
        ({"If-Modified-Since": NOW, **PART}, 304),
        ({"If-None-Match": '"another"', "If-Modified-Since": LATER}, 200),  # the tag takes precedence
        ({"If-None-Match": "*"}, 304),
        ({"If-Unmodified-Since": NOW}, 200),
        ({"If-Unmodified-Since": SOONER}, 412),
        ({"If-Unmodified-Since": SOONER, "Range": "bytes=999999-"}, 412),  # the condition comes before the range
        ({"If-Range": NOW, **PART}, 206),
        ({"If-Range": SOONER, **PART}, 200),
        ({"If-Range": LATER, **PART}, 200),
        ({"If-Range": "W/{etag}", **PART}, 200),
        ({"If-Range": "{etag}", **PART}, 206),
        ({"If-Range": '"another"', "Range": "bytes=999999-"}, 200),
        ({"If-Match": "{etag}", "If-Unmodified-Since": SOONER}, 200),
    ],
)
def test_conditions_compare_the_time_and_the_tag(
    web: FlaskClient, blobs_root: Path, headers: dict[str, str], status: int
) -> None:
    accepted = post_batch(web, [image_payload()]).get_json()
    os.utime(blobs_root / spool_key(accepted["batch_id"]), (1_700_000_000, 1_700_000_000))
    path = accepted["images"][0]["file_path"]
    known = validators(web, path)
    response = web.get(path, headers={name: value.replace("{etag}", known["ETag"]) for name, value in headers.items()})
    assert response.status_code == status
    if status == 304:
        assert response.headers["ETag"] == known["ETag"]
        assert response.data == b""
    else:
        assert len(response.data) == {200: len(make_image()), 206: 4}.get(status, len(response.data))


def test_a_file_that_is_not_made_yet_is_pending_and_an_unknown_one_is_not_found(web: FlaskClient) -> None:
    image = post_batch(web, [image_payload(make_image(1, kind="PNG"))]).get_json()["images"][0]["id"]
    plain = post_batch(web, {"images": [image_payload()], "augmentations": ["rotate"]}).get_json()["images"][0]["id"]
    assert web.get(f"/uploads/{image}.png").status_code == 200
    for path in (f"/uploads/{image}.jpg", f"/uploads/{image}/thumb.jpg", f"/uploads/{image}/rotate.jpg", f"/uploads/{plain}/rotate.jpg", f"/uploads/{plain}/boxes.jpg"):
        response = web.get(path)
        assert (response.status_code, response.get_json(force=True)["code"]) == (404, "image_pending")
        assert response.headers["Retry-After"]
    for path in (f"/uploads/{image}.gif", f"/uploads/{plain}/noise.jpg", f"/uploads/{image}/nope.jpg", "/uploads/x.jpg", f"/uploads/{'0' * 36}.jpg"):
        assert web.get(path).get_json(force=True)["code"] == "not_found"
