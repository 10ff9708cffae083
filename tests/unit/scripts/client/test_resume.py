"""``scripts/upload`` as a program: interrupted, killed, refused, or run twice, an upload is resumed and sends no image twice."""

import re
import signal
import subprocess
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from scripts.client.files import find_images
from scripts.client.journal import Journal
from scripts.client.send_group import Sender
from scripts.client.uploader import GroupResult, Upload, plan_groups
from scripts.local.installation import ROOT
from tests.unit.scripts.client.command_line import Client, kill_after_two_groups, resume_files, upload
from tests.unit.scripts.client.scripted_service import LIMITS, PATIENCE_S, Reply, ScriptedService

pytestmark = pytest.mark.slow


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
