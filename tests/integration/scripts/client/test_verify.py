"""``scripts/upload --verify`` compares the receipts of a real service with the local files."""

import os
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest

from scripts.client.journal import Journal
from scripts.client.send_group import Sender
from scripts.client.verification import verify
from shared.storage.mongo import Db
from tests.integration.scripts.client.conftest import Run, Upload
from tests.support.gunicorn_front import WebFront
from tests.support.web_client import make_image

pytestmark = pytest.mark.slow


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with five images."""
    path = tmp_path / "images"
    path.mkdir()
    for number in range(5):
        (path / f"{number}.jpg").write_bytes(make_image(number))
    return path


def codes(run: Run) -> dict[str, str]:
    """Return the code of each problem by the name of its file; for a whole batch, by an empty text."""
    return {Path(problem["path"]).name: problem["code"] for problem in run.summary["problems"]}


def resume_file(tmp_path: Path) -> Path:
    (path,) = tmp_path.glob("*.upload.jsonl")
    return path


@pytest.mark.usefixtures("processing")
def test_what_was_uploaded_is_verified_and_the_resume_file_is_removed(upload: Upload, folder: Path, tmp_path: Path) -> None:
    run = upload(str(folder), "--verify", "--batch-size", "2")
    assert (run.code, run.summary["verified"], run.summary["problems"], run.summary["done"]) == (0, 5, [], 5)
    assert "verified" in run.stderr
    assert not list(tmp_path.glob("*.upload.jsonl"))


@pytest.mark.usefixtures("processing")
def test_everything_that_is_not_right_is_named(upload: Upload, front: WebFront, db: Db, folder: Path) -> None:
    (folder / "bad.jpg").write_bytes(make_image(9))
    (folder / "text.jpg").write_bytes(b"no image")
    arguments = [str(folder), "--keep-resume", "--batch-size", "4"]
    assert upload(*arguments, "--wait").code == 1  # two images failed or were rejected
    deleted = db.images.find_one({"filename": "1.jpg"}, {"_id": 1})
    assert deleted is not None
    assert httpx.delete(f"{front.url}/images/{deleted['_id']}").status_code == 204
    db.images.update_one({"filename": "2.jpg"}, {"$set": {"sha256": "0" * 64}})
    db.images.update_one({"filename": "3.jpg"}, {"$set": {"status": "queued"}})
    (folder / "0.jpg").unlink()
    run = upload(*arguments, "--verify", "--wait-for", "1")
    expected = {"0.jpg": "file_missing", "1.jpg": "missing", "2.jpg": "different", "bad.jpg": "failed"}
    assert {name: code for name, code in codes(run).items() if name != "3.jpg"} == expected
    assert (run.code, run.summary["accepted"], run.summary["verified"] + len(run.summary["problems"])) == (1, 6, 6)
    assert "different  " in run.stderr


@pytest.mark.usefixtures("processing")
def test_a_file_that_was_changed_after_an_earlier_run_is_named_and_the_resume_file_is_kept(upload: Upload, folder: Path, tmp_path: Path) -> None:
    arguments = [str(folder), "--batch-size", "2"]
    assert upload(*arguments, "--keep-resume").code == 0
    kept = resume_file(tmp_path)
    (folder / "0.jpg").write_bytes(b"x" + make_image(0))
    again = upload(*arguments, "--verify", "--wait-for", "60")
    # The changed file is a new image, which is no image, and the one that was uploaded before differs from it.
    assert (again.code, Counter(codes(again).values())) == (1, Counter({"file_changed": 1}))
    assert kept.exists()
    (folder / "0.jpg").write_bytes(make_image(0))
    assert upload(*arguments, "--verify").code == 1  # the rejected image is in the resume file, too


@pytest.mark.usefixtures("processing")
def test_a_deleted_batch_and_an_unbalanced_one_are_named(upload: Upload, front: WebFront, db: Db, folder: Path) -> None:
    arguments = [str(folder), "--batch-size", "3", "--parallel", "1"]
    first, second = upload(*arguments, "--wait", "--keep-resume").summary["batches"]
    assert httpx.delete(f"{front.url}/image_batches/{first}").status_code == 204
    db.ledger.update_one({"_id": second}, {"$inc": {"received": 1}})
    run = upload(*arguments, "--verify")
    assert (run.code, run.summary["verified"]) == (1, 0)
    assert Counter(problem["code"] for problem in run.summary["problems"]) == Counter({"missing": 3, "unbalanced": 1})


class EditingSender(Sender):
    """Edits each receipt on its way, so that a failed image looks like a done one."""

    def fetch_receipt(self, batch_id: str) -> dict[str, Any] | None:
        receipt = super().fetch_receipt(batch_id)
        assert receipt is not None
        for image in receipt["images"]:
            image["status"] = "done"
        return receipt | {"balance": receipt["balance"] | {"done": len(receipt["images"]), "failed": 0}}


@pytest.mark.usefixtures("processing")
def test_a_receipt_that_was_edited_on_its_way_proves_nothing(upload: Upload, front: WebFront, folder: Path, tmp_path: Path) -> None:
    (folder / "bad.jpg").write_bytes(make_image(9))
    assert upload(str(folder), "--wait", "--keep-resume").code == 1
    found: list[tuple[int, int, list[dict[str, str]]]] = []
    sender = EditingSender(front.url, None, 5, threading.Event())
    with Journal(resume_file(tmp_path), front.url) as journal:
        verify(sender, journal.answered_groups(), lambda *group: found.append(group))
    sender.close()
    ((right, images, (problem,)),) = found
    assert (right, images, problem["code"]) == (0, 6, "bad_signature")


def test_unfinished_images_are_named(upload: Upload, folder: Path, tmp_path: Path) -> None:
    run = upload(str(folder), "--verify", "--wait-for", "0.1")
    assert (run.code, set(codes(run).values()), len(codes(run))) == (5, {"unfinished"}, 5)
    assert resume_file(tmp_path).exists()


def test_verifying_needs_the_resume_file(upload: Upload, folder: Path) -> None:
    run = upload(str(folder), "--verify", "--no-resume")
    assert (run.code, "--verify and --keep-resume need the resume file" in run.stderr) == (2, True)


def test_a_file_of_an_earlier_version_without_indexes_is_verified(upload: Upload, folder: Path, tmp_path: Path) -> None:
    (folder / "0.jpg").write_bytes(b"no image")
    assert upload(str(folder), "--keep-resume").code == 1
    path = resume_file(tmp_path)
    text = path.read_text()
    assert '"refused_indexes": [0]' in text
    path.write_text(text.replace(', "refused_indexes": [0]', ""))
    os.utime(path)
    run = upload(str(folder), "--verify", "--wait-for", "0.1")
    assert (set(codes(run)), set(codes(run).values())) == ({"1.jpg", "2.jpg", "3.jpg", "4.jpg"}, {"unfinished"})
