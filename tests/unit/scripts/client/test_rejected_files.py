"""``scripts/upload`` as a program: files that cannot be read or sent are rejected one by one, and listed."""

import os
import re
import shutil
import tempfile
import threading
from pathlib import Path

import pytest

from scripts.client.files import find_images
from scripts.client.journal import Journal
from scripts.client.send_group import Sender
from scripts.client.uploader import GroupResult, Upload, plan_groups
from tests.unit.scripts.client.command_line import resume_files, upload
from tests.unit.scripts.client.scripted_service import LIMITS, PATIENCE_S, ScriptedService

pytestmark = pytest.mark.slow


def test_images_that_can_no_longer_be_read_are_rejected_one_by_one(service: ScriptedService, folder: Path) -> None:
    def damage_files() -> None:
        (folder / "1.jpg").unlink()
        (folder / "2.jpg").unlink()
        (folder / "2.jpg").mkdir()
        (folder / "4.jpg").write_bytes(bytes(LIMITS["max_image_bytes"] + 1))
        (folder / "5.jpg").write_bytes(b"bad")

    service.on_limits = damage_files
    code, summary, _ = upload(service, folder)
    assert (code, summary["accepted"]) == (1, 2)
    rejected = {Path(image["path"]).name: image["code"] for image in summary["rejected"]}
    assert rejected == {"1.jpg": "unreadable", "2.jpg": "unreadable", "4.jpg": "image_too_large", "5.jpg": "unsupported_format"}
    assert sorted(service.stored) == ["0.jpg", "3.jpg"]


def test_a_file_that_became_a_pipe_or_grows_while_it_is_read_is_rejected_by_itself(service: ScriptedService, folder: Path, tmp_path: Path) -> None:
    stop = threading.Event()

    def append() -> None:
        with (folder / "2.jpg").open("ab") as file:
            while not stop.is_set():
                file.write(b"x")
                file.flush()

    writer = threading.Thread(target=append)
    with Journal(tmp_path / "kept", service.url) as journal:
        images = find_images([folder], store=None, camera=None, timestamp=None).images
        (folder / "1.jpg").unlink()
        os.mkfifo(folder / "1.jpg")
        writer.start()
        sender = Sender(service.url, None, PATIENCE_S, threading.Event())
        results: list[GroupResult] = []
        try:
            groups = plan_groups(images, journal, max_images=6, max_bytes=999)
            problem = Upload(sender, journal, threading.Event(), 10**9).send(groups, 1, lambda _, result: results.append(result))
        finally:
            stop.set()
            writer.join()
            sender.close()
    rejected = {Path(image["path"]).name: image["code"] for result in results for image in result.rejected}
    assert (problem, rejected.pop("1.jpg")) == (None, "unreadable")
    assert rejected in ({"2.jpg": "changed"}, {})  # the file may not have been written to while it was read
    assert len(service.stored) == 5 - len(rejected)


def test_a_file_with_an_impossible_time_is_rejected_by_itself(service: ScriptedService, folder: Path) -> None:
    if not keeps_time(folder / "3.jpg", 10**12):
        with tempfile.TemporaryDirectory(dir="/dev/shm") as memory:
            if not keeps_time(shutil.copytree(folder, Path(memory) / "images") / "3.jpg", 10**12):
                pytest.skip("no file system here keeps such a time")
            check_an_impossible_time(service, Path(memory) / "images")
    else:
        check_an_impossible_time(service, folder)


def keeps_time(file: Path, time_s: int) -> bool:
    os.utime(file, (time_s, time_s))
    return file.stat().st_mtime == time_s


def check_an_impossible_time(service: ScriptedService, folder: Path) -> None:
    code, summary, stderr = upload(service, folder)
    assert (code, summary["accepted"], [image["code"] for image in summary["rejected"]]) == (1, 5, ["bad_timestamp"])
    assert "--timestamp" in stderr
    assert upload(service, folder, "--timestamp", "1768467600.5")[0] == 0
    assert {metadata["timestamp"] for request in service.requests[-3:] for metadata in request.metadata} == {1768467600.5}


def test_what_could_not_be_read_is_listed_and_changes_the_exit_code(service: ScriptedService, folder: Path) -> None:
    (folder / "x[red]\n\x1b[2J.jpg").symlink_to("nowhere.jpg")
    (folder / "notes.txt").touch()
    code, summary, stderr = upload(service, folder)
    assert (code, summary["accepted"], summary["rejected"], summary["left_out"]) == (1, 6, [], {".txt": 1})
    assert [Path(unread["path"]).name for unread in summary["unread"]] == ["x[red]\n\x1b[2J.jpg"]
    assert r"x[red]\n\x1b[2J.jpg: It is a link to a file that does not exist" in stderr
    assert re.search(r"left out +1 \.txt", stderr)
    assert not resume_files(folder)


def test_a_folder_that_may_not_be_read_is_no_empty_folder(service: ScriptedService, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images/a.jpg").symlink_to("nowhere.jpg")
    code, _, stderr = upload(service, tmp_path / "images")
    assert (code, stderr.count("\n")) == (2, 1)
    assert "could not be read: It is a link to a file that does not exist" in stderr
