"""``scripts/upload --watch`` with a real service: each file is uploaded once, and removed only when its image is done."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest

from scripts.local.installation import ROOT
from shared import settings
from shared.storage.mongo import Db
from tests.integration.scripts.client.conftest import StartWatch
from tests.support.accounts import SIGNING_KEYS, make_key
from tests.support.gunicorn_front import WebFront, run_web_front
from tests.support.service_stack import wait_until
from tests.support.web_client import make_image

pytestmark = pytest.mark.slow

IMAGE = make_image(1)


def names(db: Db, **query: str) -> Counter[str]:
    """Return the file names of the images that the service has, each as often as it has it."""
    return Counter(image["filename"] for image in db.images.find(query, {"filename": 1}))


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def wait_for(db: Db, count: int, **query: str) -> None:
    wait_until(lambda: db.images.count_documents(query) >= count, 60, f"{count} images")


def passes(seconds: float = 2.5) -> None:
    """Wait for at least one more pass of the folder after files have settled, in which nothing is expected to happen."""
    time.sleep(seconds)


@pytest.mark.usefixtures("processing")
def test_files_are_uploaded_once_with_the_metadata_of_the_options_and_stay(watch: StartWatch, db: Db, drop: Path) -> None:
    (drop / "cam" / "deep").mkdir(parents=True)
    (drop / "a.jpg").write_bytes(IMAGE)
    (drop / "cam" / "deep" / "b.JPG").write_bytes(make_image(2))
    os.utime(drop / "a.jpg", (1_768_467_600, 1_768_467_600))
    running = watch("--store", "north", "--camera", "7")
    wait_for(db, 2, status="done")
    passes()
    run = running.end()
    assert (run.code, run.summary["states"], run.summary["uploaded"]) == (0, {"done": 2}, 2)
    assert "Nothing is left." in run.stderr
    assert "Ended: 2 images were uploaded and 0 files removed since the start." in run.stderr
    assert "Waiting for" not in run.stderr  # no request is in progress
    assert names(db) == Counter(["a.jpg", "b.JPG"])
    image = db.images.find_one({"filename": "a.jpg"})
    assert image is not None
    assert (image["store_name"], image["camera_id"], image["timestamp"].isoformat()) == ("north", "7", "2026-01-15T09:00:00")
    assert sorted(path.name for path in drop.rglob("*.*")) == ["a.jpg", "b.JPG"]
    again = watch("--store", "north", "--camera", "7")
    passes(4)
    assert again.end(signal.SIGTERM).summary["uploaded"] == 0


@pytest.mark.usefixtures("processing")
def test_files_are_removed_when_they_are_done_but_failed_and_refused_ones_stay_and_are_named(watch: StartWatch, db: Db, drop: Path) -> None:
    for name, data in (("good.jpg", IMAGE), ("bad.jpg", make_image(2)), ("text.jpg", b"no image"), ("empty.jpg", b""), ("huge.jpg", b"")):
        (drop / name).write_bytes(data)
    os.truncate(drop / "huge.jpg", 21 << 20)
    running = watch("--delete")
    wait_until(lambda: not (drop / "good.jpg").exists() and "failed: corrupt: The image file is damaged." in running.log(), 60, "the results")
    run = running.end()
    assert (run.code, run.summary["states"], run.summary["removed"]) == (1, {"failed": 1, "refused": 3}, 1)
    assert "Ended: 2 images were uploaded and 1 file removed since the start." in run.stderr
    assert names_in(drop) == ["bad.jpg", "empty.jpg", "huge.jpg", "text.jpg"]
    for sentence in ("huge.jpg: refused: image_too_large", "empty.jpg: refused: empty", "text.jpg: refused: "):
        assert sentence in run.stderr
    assert names(db) == Counter(["good.jpg", "bad.jpg"])


def test_a_file_is_not_removed_before_it_is_done(watch: StartWatch, db: Db, drop: Path) -> None:
    (drop / "a.jpg").write_bytes(IMAGE)
    running = watch("--delete")
    wait_for(db, 1)
    passes(4)
    run = running.end()
    assert (run.code, run.summary["left"]["without a result"], (drop / "a.jpg").exists()) == (130, 1, True)
    assert "Left: 1 without a result." in run.stderr


@pytest.mark.usefixtures("processing")
def test_unfinished_hidden_linked_and_endless_files_are_left_alone(watch: StartWatch, db: Db, drop: Path, tmp_path: Path) -> None:
    (tmp_path / "outside.jpg").write_bytes(make_image(5))
    for name in (".hidden.jpg", "a.jpg.part", "a.tmp", "a.part.jpg", "~a.jpg", "notes.txt"):
        (drop / name).write_bytes(IMAGE)
    for name in (".git", "@eaDir"):
        (drop / name).mkdir()
        (drop / name / "x.jpg").write_bytes(IMAGE)
    (drop / "link.jpg").symlink_to(tmp_path / "outside.jpg")
    (drop / "loop").symlink_to(drop)
    os.mkfifo(drop / "pipe.jpg")
    stop = threading.Event()

    def write() -> None:
        with (drop / "endless.jpg").open("wb") as file:
            file.write(IMAGE)
            while not stop.wait(0.1):
                file.write(b"more")
                file.flush()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        running = watch("--delete")
        (drop / "good.jpg").write_bytes(IMAGE)
        wait_until(lambda: not (drop / "good.jpg").exists(), 60, "the good one is removed")
        assert names(db) == Counter(["good.jpg"])
        (drop / "a.jpg.part").rename(drop / "renamed.jpg")  # complete now
        wait_until(lambda: not (drop / "renamed.jpg").exists(), 60, "the renamed one is removed")
        run = running.end()
    finally:
        stop.set()
        writer.join()
    assert names(db) == Counter(["good.jpg", "renamed.jpg"])
    assert (run.code, run.summary["left"]["not uploaded"]) == (130, 1)
    assert (tmp_path / "outside.jpg").exists()


@pytest.mark.usefixtures("processing")
def test_a_half_written_file_waits_for_its_end(watch: StartWatch, db: Db, drop: Path) -> None:
    running = watch("--settle", "2")
    with (drop / "slow.jpg").open("wb") as file:
        for start in range(0, len(IMAGE), len(IMAGE) // 4):
            file.write(IMAGE[start : start + len(IMAGE) // 4])
            file.flush()
            time.sleep(1)
    wait_for(db, 1)
    running.end()
    assert db.images.count_documents({"file_size": len(IMAGE)}) == db.images.count_documents({}) == 1


def test_a_file_that_is_changed_before_its_result_is_not_removed_and_uploaded_as_a_new_one(watch: StartWatch, db: Db, drop: Path, request: pytest.FixtureRequest) -> None:
    running = watch("--delete")
    (drop / "a.jpg").write_bytes(IMAGE)
    (drop / "same_time.jpg").write_bytes(make_image(3))
    wait_for(db, 2)
    passes()
    (drop / "a.jpg").write_bytes(make_image(2))
    at = (drop / "same_time.jpg").stat().st_mtime_ns
    (drop / "same_time.jpg").write_bytes(bytes(len(make_image(3))))
    os.utime(drop / "same_time.jpg", ns=(at, at))
    request.getfixturevalue("processing")
    wait_for(db, 3, status="done")
    wait_until(lambda: not (drop / "a.jpg").exists() and "although its modification time was not" in running.log(), 60, "the second version is removed")
    run = running.end()
    assert names(db) == Counter({"a.jpg": 2, "same_time.jpg": 1})
    assert (run.code, run.summary["states"], (drop / "same_time.jpg").exists()) == (1, {"changed": 1}, True)


@pytest.mark.usefixtures("processing")
def test_a_renamed_or_touched_file_is_not_uploaded_again(watch: StartWatch, db: Db, drop: Path) -> None:
    running = watch()
    (drop / "a.jpg").write_bytes(IMAGE)
    (drop / "b.jpg").write_bytes(make_image(2))
    wait_for(db, 2, status="done")
    (drop / "sub").mkdir()
    (drop / "a.jpg").rename(drop / "sub" / "c.jpg")
    (drop / "b.jpg").touch()
    passes(4)
    shutil.copy(drop / "b.jpg", drop / "copy.jpg")  # another file with the same content
    wait_for(db, 3, status="done")
    passes(4)
    run = running.end()
    assert names(db) == Counter(["a.jpg", "b.jpg", "copy.jpg"])
    assert (run.code, run.summary["states"]) == (0, {"done": 3})


@pytest.mark.usefixtures("processing")
def test_a_failed_file_is_uploaded_again_when_it_is_touched(watch: StartWatch, db: Db, drop: Path) -> None:
    running = watch()
    (drop / "bad.jpg").write_bytes(IMAGE)
    wait_until(lambda: "failed: corrupt" in running.log(), 60, "the result")
    passes()
    assert names(db) == Counter(["bad.jpg"])
    (drop / "bad.jpg").touch()
    wait_for(db, 2)
    running.end()


def test_a_vanished_file_is_forgotten(watch: StartWatch, db: Db, drop: Path) -> None:
    running = watch("--settle", "3")
    (drop / "a.jpg").write_bytes(IMAGE)
    passes(1.5)
    (drop / "a.jpg").unlink()
    passes(4)
    run = running.end()
    assert (run.code, run.summary["uploaded"], db.images.count_documents({})) == (0, 0, 0)


@pytest.mark.usefixtures("processing")
@pytest.mark.parametrize("killed", [False, True], ids=["interrupted", "killed"])
def test_hundreds_of_files_are_uploaded_once_also_after_a_kill(watch: StartWatch, db: Db, drop: Path, *, killed: bool) -> None:
    for number in range(600):
        (drop / f"{number}.jpg").write_bytes(IMAGE + bytes(str(number), "ascii"))
    running = watch("--delete", "--batch-size", "20")
    wait_for(db, 100)
    if killed:
        running.process.kill()
        running.process.wait(60)
    else:
        running.end()
    again = watch("--delete", "--batch-size", "20")
    wait_until(lambda: not names_in(drop), 200, "all files are removed")
    run = again.end()
    assert (run.code, run.summary["states"]) == (0, {})
    assert names(db) == Counter(f"{number}.jpg" for number in range(600))


@pytest.mark.usefixtures("processing")
def test_files_wait_while_the_service_is_away(watch: StartWatch, front: WebFront, db: Db, drop: Path) -> None:
    running = watch("--delete", "--retry-for", "1")
    (drop / "a.jpg").write_bytes(IMAGE)
    wait_until(lambda: not names_in(drop), 60, "the first file is removed")
    os.kill(front.pid, signal.SIGTERM)
    wait_until(lambda: not psutil.pid_exists(front.pid) or psutil.Process(front.pid).status() == psutil.STATUS_ZOMBIE, 60, "the web front ends")
    (drop / "b.jpg").write_bytes(make_image(2))
    wait_until(lambda: "The files stay, and are sent again" in running.log(), 60, "the message")
    late = watch("--resume", str(drop.parent / "late.sqlite3"), "--retry-for", "1")  # it starts while the service is away
    wait_until(lambda: "Trying again until it responds" in late.log(), 60, "the message")
    assert (late.end().code, names_in(drop)) == (130, ["b.jpg"])
    command = [sys.executable, "-m", "gunicorn", "-c", "web/server/gunicorn_conf.py", "web.app:create_app()"]
    again = subprocess.Popen(command, cwd=ROOT, env=front.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: not names_in(drop), 90, "the second file is removed")
        assert running.end().code == 0
    finally:
        again.terminate()
        again.wait(60)
    assert names(db) == Counter(["a.jpg", "b.jpg"])


@pytest.mark.usefixtures("processing")
def test_a_camera_key_uploads_but_its_files_stay_because_results_may_not_be_read(watch: StartWatch, db: Db, drop: Path, mongo: settings.Mongo, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text(make_key(db, None, scopes=["images:upload"]))
    key.chmod(0o600)
    (tmp_path / "closed").mkdir()
    with run_web_front(mongo, tmp_path / "closed", ACCESS="on", SIGNING_KEYS=f'{{"test": "{SIGNING_KEYS["test"]}"}}') as closed:
        running = watch("--delete", "--api-key-file", str(key), url=closed.url)
        (drop / "a.jpg").write_bytes(IMAGE)
        wait_until(lambda: "lacks the scope images:read" in running.log(), 60, "the message")
        (drop / "b.jpg").write_bytes(make_image(2))
        wait_for(db, 2)
        run = running.end()
    assert (run.code, names_in(drop)) == (130, ["a.jpg", "b.jpg"])
    assert run.stderr.count("lacks the scope") == 1


def test_two_watches_of_a_folder_are_refused_and_so_are_wrong_options(watch: StartWatch, drop: Path, tmp_path: Path) -> None:
    first = watch()
    wait_until(lambda: list(tmp_path.glob("*.watch.sqlite3")), 60, "the state file")
    second = watch()
    assert second.process.wait(60) == 4
    assert first.end().code == 0
    (tmp_path / "text").write_text("This is not a database. " * 100)
    for arguments, sentence in (
        (["--wait"], "--watch cannot be used with"), (["--settle", "-1"], "must be 0 to"), (["--resume", str(tmp_path / "text")], "is not a file of --watch"), (["more.jpg"], "--watch cannot be used"),
    ):  # fmt: skip
        wrong = watch(*arguments)
        assert wrong.process.wait(60) == 2
        assert sentence in wrong.log()
