"""``scripts/upload`` as a program: interrupted, killed, refused, run twice, with a service that can delay its responses."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from scripts.client.files import find_images
from scripts.client.groups import UsageError
from scripts.client.journal import Journal
from scripts.client.send_group import Sender, _is_loopback
from scripts.client.uploader import GroupResult, Upload, plan_groups
from scripts.local.installation import ROOT
from tests.unit.scripts.client.scripted_service import LIMITS, PATIENCE_S, Reply, ScriptedService

pytestmark = pytest.mark.slow


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with six images."""
    path = tmp_path / "images"
    path.mkdir()
    for number in range(6):
        (path / f"{number}.jpg").write_bytes(b"image %d" % number)
    return path


class Client:
    """One run of the command in its own process, in the parent of the images' folder."""

    def __init__(self, service: ScriptedService, source: Path, *arguments: str) -> None:
        command = [sys.executable, "-m", "scripts.client.main", str(source), "--url", service.url, "--json", "--quiet", "--batch-size", "2", *arguments]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        self._process = subprocess.Popen(command, cwd=source.parent, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def signal(self, signum: signal.Signals) -> None:
        self._process.send_signal(signum)

    def read_line(self) -> str:
        assert self._process.stderr is not None
        return self._process.stderr.readline()

    def end(self) -> tuple[int, dict[str, Any], str]:
        """Return exit code, summary, and the text on standard error."""
        out, err = self._process.communicate(timeout=PATIENCE_S)
        return self._process.returncode, json.loads(out or "{}"), err


def upload(service: ScriptedService, source: Path, *arguments: str) -> tuple[int, dict[str, Any], str]:
    return Client(service, source, *arguments).end()


def resume_files(folder: Path) -> list[Path]:
    return list(folder.parent.glob("*.upload.jsonl"))


def kill_after_two_groups(service: ScriptedService, folder: Path) -> None:
    """Kill a client after the service accepted two groups, before it answers."""
    service.answering.clear()
    first = Client(service, folder)
    service.wait_for(2)
    first.signal(signal.SIGKILL)
    first.end()
    service.answering.set()


def test_files_added_or_removed_between_two_runs_do_not_affect_the_other_files(service: ScriptedService, folder: Path) -> None:
    service.script = [None, None, Reply(401, "unauthorized")]
    code, summary, stderr = upload(service, folder, "--parallel", "1")
    assert (code, summary["accepted"]) == (3, 4)
    assert ("To resume: scripts/upload " in stderr, "unauthorized: Scripted by the test." in stderr) == (True, True)
    (folder / "00.jpg").write_bytes(b"a new one that comes first")
    (folder / "1.jpg").unlink()
    code, summary, _ = upload(service, folder)
    assert (code, summary["accepted"], summary["skipped"]) == (0, 7, 4)
    assert Counter(service.stored) == Counter(["00.jpg", *(f"{number}.jpg" for number in range(6))])
    assert not resume_files(folder)


def test_pending_groups_are_sent_again_first_with_the_same_keys(service: ScriptedService, folder: Path) -> None:
    kill_after_two_groups(service, folder)
    (folder / "00.jpg").write_bytes(b"a new one that comes first")
    code, summary, _ = upload(service, folder, "--batch-size", "1", "--parallel", "1")
    assert (code, summary["accepted"]) == (0, 7)
    before, after = service.requests[:2], service.requests[2:4]
    assert {(request.key, *request.names) for request in after} == {(request.key, *request.names) for request in before}
    assert Counter(service.stored) == Counter(["00.jpg", *(f"{number}.jpg" for number in range(6))])


def test_pending_groups_whose_keys_have_expired_cause_a_warning(service: ScriptedService, folder: Path) -> None:
    kill_after_two_groups(service, folder)
    journal = resume_files(folder)[0]
    journal.write_text(re.sub(r'"at": [0-9.]+', f'"at": {time.time() - 25 * 3600}', journal.read_text()))
    assert "4 images were sent more than 24 h ago" in upload(service, folder)[2]


def test_a_changed_file_is_a_new_image_and_the_rest_of_its_group_is_sent_once(service: ScriptedService, folder: Path) -> None:
    service.script = [Reply(503)] * 9
    code, _, stderr = upload(service, folder, "--parallel", "1", "--retry-for", "0.1")
    assert (code, "HTTP 503" in stderr) == (3, True)
    service.script = []
    (folder / "0.jpg").write_bytes(b"another image")
    code, summary, _ = upload(service, folder)
    assert (code, summary["accepted"]) == (0, 6)
    assert Counter(service.stored) == Counter(f"{number}.jpg" for number in range(6))
    first, *later = service.requests
    assert [request.names for request in later if request.key == first.key] == [["1.jpg"]]


def test_a_file_that_is_missing_during_one_run_is_sent_in_a_later_run(service: ScriptedService, folder: Path) -> None:
    service.script = [Reply(503)] * 9
    upload(service, folder, "--parallel", "1", "--retry-for", "0.1")
    away = (folder / "0.jpg").rename(folder.parent / "0.away")
    service.script = [None, Reply(403, "forbidden")]
    upload(service, folder, "--parallel", "1")
    away.rename(folder / "0.jpg")
    assert upload(service, folder)[0] == 0
    assert Counter(service.stored) == Counter(f"{number}.jpg" for number in range(6))


def test_a_group_that_was_accepted_completely_is_not_sent_in_part(service: ScriptedService, folder: Path, tmp_path: Path) -> None:
    kill_after_two_groups(service, folder)
    (folder / "0.jpg").unlink()
    stop = threading.Event()
    sender = Sender(service.url, None, PATIENCE_S, stop, settled_s=0.1)  # the command line waits for a minute
    results: list[GroupResult] = []
    with Journal(resume_files(folder)[0], service.url) as journal:
        groups = plan_groups(find_images([folder], store=None, camera=None, timestamp=None).images, journal, max_images=9, max_bytes=999)
        problem = Upload(sender, journal, stop, LIMITS["max_image_bytes"]).send(groups, 1, lambda _, result: results.append(result))
    sender.close()
    assert (problem, sum(result.accepted for result in results)) == (None, 6)
    assert Counter(service.stored) == Counter(f"{number}.jpg" for number in range(6))
    with Journal(resume_files(folder)[0], service.url) as after:
        assert not after.pending
        assert not list(plan_groups(find_images([folder], store=None, camera=None, timestamp=None).images, after, max_images=9, max_bytes=999))


def test_on_ctrl_c_the_results_of_requests_in_flight_are_recorded(service: ScriptedService, folder: Path) -> None:
    service.answering.clear()
    first = Client(service, folder)
    service.wait_for(2)
    first.signal(signal.SIGINT)
    assert first.read_line() == "Waiting for 2 requests in progress; press Ctrl-C again to exit immediately.\n"
    service.answering.set()
    code, _, stderr = first.end()
    assert (code, stderr.startswith("Interrupted; 4 images were accepted. To resume: scripts/upload "), stderr.count("\n")) == (130, True, 1)
    code, summary, _ = upload(service, folder)
    assert (code, summary["accepted"], summary["skipped"], len(service.requests)) == (0, 6, 4, 3)


def test_a_second_ctrl_c_exits_at_once(service: ScriptedService, folder: Path) -> None:
    service.answering.clear()
    client = Client(service, folder)
    service.wait_for(2)
    client.signal(signal.SIGINT)
    client.read_line()
    began = time.monotonic()
    client.signal(signal.SIGINT)
    code, _, stderr = client.end()
    assert (code, stderr.startswith("Stopped without waiting. To resume: scripts/upload "), stderr.count("\n")) == (130, True, 1)
    assert time.monotonic() - began < 60


def test_the_printed_command_resumes_the_upload(service: ScriptedService, folder: Path) -> None:
    service.script = [None, Reply(403, "forbidden")]
    _, _, stderr = upload(service, folder, "--parallel", "1", "--store", "Main Street")
    command = stderr.split("To resume: ")[1].splitlines()[0]
    ended = subprocess.run(["bash", "-c", f"cd {folder.parent} && {ROOT}/{command}"], capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert ended.returncode == 0, ended.stderr
    assert Counter(service.stored) == Counter(f"{number}.jpg" for number in range(6))


def test_when_one_group_is_refused_the_results_of_the_others_are_recorded(service: ScriptedService, folder: Path, tmp_path: Path) -> None:
    service.script = [None, Reply(403, "forbidden")]
    service.answering.clear()
    stop = threading.Event()
    sender = Sender(service.url, None, PATIENCE_S, stop)
    results: list[GroupResult] = []
    with Journal(tmp_path / "kept", service.url) as journal, ThreadPoolExecutor(1) as thread:
        groups = plan_groups(find_images([folder], store=None, camera=None, timestamp=None).images, journal, max_images=2, max_bytes=999)
        problem = thread.submit(Upload(sender, journal, stop, LIMITS["max_image_bytes"]).send, groups, 2, lambda _, result: results.append(result))
        assert stop.wait(PATIENCE_S)  # the refusal has arrived; the other response is still delayed
        service.answering.set()
        assert "forbidden" in str(problem.result())
    sender.close()
    assert [result.accepted for result in results] == [2]
    code, summary, _ = upload(service, folder, "--resume", str(tmp_path / "kept"))
    assert (code, summary["skipped"]) == (0, 2)
    assert Counter(service.stored) == Counter(f"{number}.jpg" for number in range(6))


def test_two_uploads_do_not_share_a_resume_file_and_each_removes_its_own(service: ScriptedService, folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "others"
    other.mkdir()
    (other / "x.jpg").write_bytes(b"x")
    service.answering.clear()
    first = Client(service, folder)
    service.wait_for(2)
    code, _, stderr = upload(service, folder, "--batch-size", "5")
    assert (code, "already running" in stderr, stderr.count("\n")) == (4, True, 1)
    second = Client(service, other)
    service.wait_for(3)
    assert len(resume_files(folder)) == 2
    service.answering.set()
    assert (first.end()[0], second.end()[0]) == (0, 0)
    assert not resume_files(folder)
    assert len(service.requests) == 4


def test_without_a_resume_file_an_upload_cannot_be_resumed(service: ScriptedService, folder: Path) -> None:
    service.answering.clear()
    client = Client(service, folder, "--no-resume")
    service.wait_for(2)
    assert not resume_files(folder)
    client.signal(signal.SIGINT)
    client.read_line()
    service.answering.set()
    assert client.end()[::2] == (130, "Interrupted; 4 images were accepted.\n")


def test_a_wrong_token_is_reported_with_the_problem_of_the_service(service: ScriptedService, folder: Path) -> None:
    service.token = "right"
    code, _, stderr = upload(service, folder, "--token", "wrong")
    assert code == 3
    assert "unauthorized: Unknown token." in stderr
    assert not resume_files(folder)


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


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "all_proxy"])
def test_a_proxy_is_asked_for_other_machines_but_not_for_this_one(service: ScriptedService, folder: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    for other in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert upload(service, folder)[0] == 0
    assert upload(service, folder, "--url", f"http://localhost:{service.server_port}")[0] == 0
    monkeypatch.setenv(name, service.url)  # the scripted service as a proxy gets the whole URL as path
    sent = Sender("http://shelf.example", None, 0, threading.Event())
    response = sent._client.post("/upload_image_batch", files={"file": b"x"}, data={"metadata": "[]"})
    sent.close()
    assert (response.status_code, len(service.requests)) == (202, 7)
    monkeypatch.setenv(name, "ftp://proxy.example")
    with pytest.raises(UsageError, match="proxy in the environment"):
        Sender("http://shelf.example", None, 0, threading.Event())
    monkeypatch.setenv("no_proxy", "shelf.example")


@pytest.mark.parametrize(
    ("url", "local"),
    [
        ("http://127.0.0.1:5000", True),
        ("http://127.9.9.9", True),
        ("http://[::1]:5000", True),
        ("http://[::ffff:127.0.0.1]", True),
        ("http://LOCALHOST.:1", True),
        ("http://shelf.localhost", True),
        ("http://192.168.1.5:5000", False),
        ("http://localhost.example", False),
        ("https://shelf.example", False),
    ],
)
def test_a_service_on_loopback_is_recognized(url: str, local: bool) -> None:  # noqa: FBT001 -- parametrised
    assert _is_loopback(url) == local


@pytest.mark.parametrize(
    ("arguments", "stderr"),
    [
        (["--url", "127.0.0.1:5000"], "--url 127.0.0.1:5000 is not the address of a service"),
        (["--token", "caf\xe9"], "--token"),
        (["latin.csv"], "latin.csv is not UTF-8"),
        (["nowhere"], "nowhere does not exist"),
        (["--resume", "latin.csv"], "latin.csv is not a resume file"),
    ],
)
def test_a_usage_error_is_one_line_at_once(service: ScriptedService, folder: Path, arguments: list[str], stderr: str) -> None:
    (folder.parent / "latin.csv").write_bytes(b"path,store_name\nimages/0.jpg,Caf\xe9\n")
    began = time.monotonic()
    code, _, err = upload(service, folder, *arguments)
    assert (code, stderr in err, err.count("\n")) == (2, True, 1)
    assert time.monotonic() - began < 60
    assert not service.requests


def test_a_file_name_that_is_not_utf_8_is_sent_and_resumed(service: ScriptedService, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / os.fsdecode(b"caf\xe9.jpg")).write_bytes(b"x")
    service.script = [Reply(403, "forbidden")]
    assert upload(service, folder)[0] == 3
    assert upload(service, folder)[0] == 0
    assert service.stored == ["caf\\xe9.jpg"]
    assert service.requests[1].key == service.requests[0].key


def test_two_rows_for_one_image_are_two_observations(service: ScriptedService, folder: Path) -> None:
    manifest = folder.parent / "manifest.csv"
    manifest.write_text("path,camera_id\nimages/0.jpg,1\nimages/0.jpg,2\n")
    code, summary, _ = upload(service, manifest)
    assert (code, summary["found"], summary["accepted"]) == (0, 2, 2)
    assert [meta["camera_id"] for meta in service.requests[0].metadata] == ["1", "2"]


def test_the_wait_for_results_is_limited_and_can_be_resumed(service: ScriptedService, folder: Path) -> None:
    service.finished = False
    code, summary, stderr = upload(service, folder, "--wait-for", "0.5")
    assert (code, summary["accepted"], summary["waiting"]) == (5, 6, 6)
    assert "6 images have no result after 0.5 s" in stderr
    assert "To resume: " in stderr
    service.finished = True
    code, summary, _ = upload(service, folder, "--wait")
    assert (code, summary["done"], len(service.requests)) == (0, 6, 3)
    assert not resume_files(folder)
