"""``scripts/upload`` as a program: interrupted, killed, refused, run twice; against a service that can hold its answers."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from scripts.client.groups import find
from scripts.client.journal import Journal
from scripts.client.send_group import Sender
from scripts.client.uploader import Answer, Upload, groups
from scripts.local.installation import ROOT
from tests.unit.scripts.client.scripted_service import LIMITS, PATIENCE_S, Peer, Say

pytestmark = pytest.mark.slow


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six pictures."""
    path = tmp_path / "pictures"
    path.mkdir()
    for number in range(6):
        (path / f"{number}.jpg").write_bytes(b"picture %d" % number)
    return path


class Client:
    """One run of the command in its own process, in the folder above the pictures."""

    def __init__(self, peer: Peer, source: Path, *arguments: str) -> None:
        command = [sys.executable, "-m", "scripts.client.main", str(source), "--url", peer.url, "--json", "--quiet", "--batch-size", "2", *arguments]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        self._process = subprocess.Popen(command, cwd=source.parent, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def signal(self, how: signal.Signals) -> None:
        self._process.send_signal(how)

    def read_line(self) -> str:
        assert self._process.stderr is not None
        return self._process.stderr.readline()

    def end(self) -> tuple[int, dict[str, Any], str]:
        """Give exit code, summary, and what was said."""
        out, err = self._process.communicate(timeout=PATIENCE_S)
        return self._process.returncode, json.loads(out or "{}"), err


def upload(peer: Peer, source: Path, *arguments: str) -> tuple[int, dict[str, Any], str]:
    return Client(peer, source, *arguments).end()


def resume_files(folder: Path) -> list[Path]:
    return list(folder.parent.glob("*.upload.jsonl"))


def killed_after_two_groups_came(peer: Peer, folder: Path) -> None:
    """Both are taken by the service; the client never hears of it."""
    peer.answering.clear()
    first = Client(peer, folder)
    peer.wait_for(2)
    first.signal(signal.SIGKILL)
    first.end()
    peer.answering.set()


def test_files_added_and_removed_between_two_runs_change_nothing_for_the_others(peer: Peer, folder: Path) -> None:
    peer.script = [None, None, Say(401, "unauthorized")]
    code, summary, said = upload(peer, folder, "--parallel", "1")
    assert (code, summary["accepted"]) == (3, 4)
    assert ("To go on: scripts/upload " in said, "unauthorized: As the test says." in said) == (True, True)
    (folder / "00.jpg").write_bytes(b"a new one that comes first")
    (folder / "1.jpg").unlink()
    code, summary, _ = upload(peer, folder)
    assert (code, summary["accepted"], summary["skipped"]) == (0, 7, 4)
    assert Counter(peer.stored) == Counter(["00.jpg", *(f"{number}.jpg" for number in range(6))])
    assert not resume_files(folder)


def test_what_was_begun_is_sent_again_first_and_under_its_key(peer: Peer, folder: Path) -> None:
    killed_after_two_groups_came(peer, folder)
    (folder / "00.jpg").write_bytes(b"a new one that comes first")
    code, summary, _ = upload(peer, folder, "--batch-size", "1", "--parallel", "1")
    assert (code, summary["accepted"]) == (0, 7)
    before, after = peer.requests[:2], peer.requests[2:4]
    assert {(one.key, *one.names) for one in after} == {(one.key, *one.names) for one in before}
    assert Counter(peer.stored) == Counter(["00.jpg", *(f"{number}.jpg" for number in range(6))])


def test_keys_that_the_service_has_forgotten_by_now_are_warned_of(peer: Peer, folder: Path) -> None:
    killed_after_two_groups_came(peer, folder)
    journal = resume_files(folder)[0]
    journal.write_text(re.sub(r'"at": [0-9.]+', f'"at": {time.time() - 25 * 3600}', journal.read_text()))
    assert "4 pictures were in flight over 24 h ago" in upload(peer, folder)[2]


def test_a_file_changed_since_is_a_new_picture_and_its_group_is_still_sent_once(peer: Peer, folder: Path) -> None:
    peer.script = [Say(503)] * 9
    code, _, said = upload(peer, folder, "--parallel", "1", "--retry-for", "0.1")
    assert (code, "HTTP 503" in said) == (3, True)
    peer.script = []
    (folder / "0.jpg").write_bytes(b"another picture")
    code, summary, _ = upload(peer, folder)
    assert (code, summary["accepted"]) == (0, 6)
    assert Counter(peer.stored) == Counter(f"{number}.jpg" for number in range(6))
    first, *later = peer.requests
    assert [one.names for one in later if one.key == first.key] == [["1.jpg"]]


def test_a_file_that_was_away_during_one_run_is_sent_when_it_is_back(peer: Peer, folder: Path) -> None:
    peer.script = [Say(503)] * 9
    upload(peer, folder, "--parallel", "1", "--retry-for", "0.1")
    away = (folder / "0.jpg").rename(folder.parent / "0.away")
    peer.script = [None, Say(403, "forbidden")]
    upload(peer, folder, "--parallel", "1")
    away.rename(folder / "0.jpg")
    assert upload(peer, folder)[0] == 0
    assert Counter(peer.stored) == Counter(f"{number}.jpg" for number in range(6))


def test_a_group_that_was_accepted_whole_is_not_sent_in_part(peer: Peer, folder: Path, tmp_path: Path) -> None:
    killed_after_two_groups_came(peer, folder)
    (folder / "0.jpg").unlink()
    stop = threading.Event()
    sender = Sender(peer.url, None, PATIENCE_S, stop, settled_s=0.1)  # the command waits for a minute
    answers: list[Answer] = []
    with Journal(resume_files(folder)[0], peer.url) as journal:
        todo = groups(find([folder], store="default", camera="upload", timestamp=None), journal, most=9, most_bytes=999)
        trouble = Upload(sender, journal, stop, LIMITS["max_image_bytes"]).send(todo, 1, lambda _, answer: answers.append(answer))
    sender.close()
    assert (trouble, sum(answer.accepted for answer in answers)) == (None, 6)
    assert Counter(peer.stored) == Counter(f"{number}.jpg" for number in range(6))
    with Journal(resume_files(folder)[0], peer.url) as after:
        assert not after.pending
        assert not list(groups(find([folder], store="default", camera="upload", timestamp=None), after, most=9, most_bytes=999))


def test_the_answers_in_flight_at_ctrl_c_are_kept(peer: Peer, folder: Path) -> None:
    peer.answering.clear()
    first = Client(peer, folder)
    peer.wait_for(2)
    first.signal(signal.SIGINT)
    assert first.read_line() == "Finishing 2 requests in flight; Ctrl-C again ends at once.\n"
    peer.answering.set()
    code, _, said = first.end()
    assert (code, said.startswith("Interrupted after 4 pictures. To go on: scripts/upload "), said.count("\n")) == (130, True, 1)
    code, summary, _ = upload(peer, folder)
    assert (code, summary["accepted"], summary["skipped"], len(peer.requests)) == (0, 6, 4, 3)


def test_a_second_ctrl_c_ends_at_once(peer: Peer, folder: Path) -> None:
    peer.answering.clear()
    client = Client(peer, folder)
    peer.wait_for(2)
    client.signal(signal.SIGINT)
    client.read_line()
    began = time.monotonic()
    client.signal(signal.SIGINT)
    code, _, said = client.end()
    assert (code, said.startswith("Ended at once. To go on: scripts/upload "), said.count("\n")) == (130, True, 1)
    assert time.monotonic() - began < 60


def test_the_command_it_prints_goes_on(peer: Peer, folder: Path) -> None:
    peer.script = [None, Say(403, "forbidden")]
    _, _, said = upload(peer, folder, "--parallel", "1", "--store", "Main Street")
    again = said.split("To go on: ")[1].splitlines()[0]
    ended = subprocess.run(["bash", "-c", f"cd {folder.parent} && {ROOT}/{again}"], capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert ended.returncode == 0, ended.stderr
    assert Counter(peer.stored) == Counter(f"{number}.jpg" for number in range(6))


def test_when_one_gives_up_the_answers_of_the_others_are_kept(peer: Peer, folder: Path, tmp_path: Path) -> None:
    peer.script = [None, Say(403, "forbidden")]
    peer.answering.clear()
    stop = threading.Event()
    sender = Sender(peer.url, None, PATIENCE_S, stop)
    answers: list[Answer] = []
    with Journal(tmp_path / "kept", peer.url) as journal, ThreadPoolExecutor(1) as thread:
        todo = groups(find([folder], store="default", camera="upload", timestamp=None), journal, most=2, most_bytes=999)
        trouble = thread.submit(Upload(sender, journal, stop, LIMITS["max_image_bytes"]).send, todo, 2, lambda _, answer: answers.append(answer))
        assert stop.wait(PATIENCE_S)  # the refusal has come; the other one is still held
        peer.answering.set()
        assert "forbidden" in str(trouble.result())
    sender.close()
    assert [answer.accepted for answer in answers] == [2]
    code, summary, _ = upload(peer, folder, "--resume", str(tmp_path / "kept"))
    assert (code, summary["skipped"]) == (0, 2)
    assert Counter(peer.stored) == Counter(f"{number}.jpg" for number in range(6))


def test_two_uploads_do_not_share_a_resume_file_and_each_removes_its_own(peer: Peer, folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "others"
    other.mkdir()
    (other / "x.jpg").write_bytes(b"x")
    peer.answering.clear()
    first = Client(peer, folder)
    peer.wait_for(2)
    code, _, said = upload(peer, folder, "--batch-size", "5")
    assert (code, "running already" in said, said.count("\n")) == (4, True, 1)
    second = Client(peer, other)
    peer.wait_for(3)
    assert len(resume_files(folder)) == 2
    peer.answering.set()
    assert (first.end()[0], second.end()[0]) == (0, 0)
    assert not resume_files(folder)
    assert len(peer.requests) == 4


def test_without_a_resume_file_nothing_is_left_to_go_on_with(peer: Peer, folder: Path) -> None:
    peer.answering.clear()
    client = Client(peer, folder, "--no-resume")
    peer.wait_for(2)
    assert not resume_files(folder)
    client.signal(signal.SIGINT)
    client.read_line()
    peer.answering.set()
    assert client.end()[::2] == (130, "Interrupted after 4 pictures.\n")


def test_a_bad_token_is_told_in_the_services_words(peer: Peer, folder: Path) -> None:
    peer.token = "right"
    code, _, said = upload(peer, folder, "--token", "wrong")
    assert code == 3
    assert "unauthorized: This token is none of ours." in said
    assert not resume_files(folder)


def test_pictures_that_cannot_be_read_any_more_are_rejected_singly(peer: Peer, folder: Path) -> None:
    def take_away() -> None:
        (folder / "1.jpg").unlink()
        (folder / "2.jpg").unlink()
        (folder / "2.jpg").mkdir()
        (folder / "4.jpg").write_bytes(bytes(LIMITS["max_image_bytes"] + 1))
        (folder / "5.jpg").write_bytes(b"bad")

    peer.on_limits = take_away
    code, summary, _ = upload(peer, folder)
    assert (code, summary["accepted"]) == (1, 2)
    rejected = {Path(wrong["path"]).name: wrong["code"] for wrong in summary["rejected"]}
    assert rejected == {"1.jpg": "unreadable", "2.jpg": "unreadable", "4.jpg": "image_too_large", "5.jpg": "unsupported_format"}
    assert sorted(peer.stored) == ["0.jpg", "3.jpg"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--url", "127.0.0.1:5000"], "--url 127.0.0.1:5000 is no address"),
        (["--token", "caf\xe9"], "--token"),
        (["latin.csv"], "latin.csv is not UTF-8"),
        (["nowhere"], "nowhere is no file"),
        (["--resume", "latin.csv"], "latin.csv is no resume file"),
    ],
)
def test_what_cannot_be_worked_with_is_one_line_at_once(peer: Peer, folder: Path, arguments: list[str], said: str) -> None:
    (folder.parent / "latin.csv").write_bytes(b"path,store_name\npictures/0.jpg,Caf\xe9\n")
    began = time.monotonic()
    code, _, err = upload(peer, folder, *arguments)
    assert (code, said in err, err.count("\n")) == (2, True, 1)
    assert time.monotonic() - began < 60
    assert not peer.requests


def test_a_name_that_is_not_utf_8_is_sent_and_survives_an_interruption(peer: Peer, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / os.fsdecode(b"caf\xe9.jpg")).write_bytes(b"x")
    peer.script = [Say(403, "forbidden")]
    assert upload(peer, folder)[0] == 3
    assert upload(peer, folder)[0] == 0
    assert peer.stored == ["caf\\xe9.jpg"]
    assert peer.requests[1].key == peer.requests[0].key


def test_two_rows_for_one_picture_are_two_observations(peer: Peer, folder: Path) -> None:
    sheet = folder.parent / "sheet.csv"
    sheet.write_text("path,camera_id\npictures/0.jpg,1\npictures/0.jpg,2\n")
    code, summary, _ = upload(peer, sheet)
    assert (code, summary["found"], summary["accepted"]) == (0, 2, 2)
    assert [meta["camera_id"] for meta in peer.requests[0].metadata] == ["1", "2"]


def test_waiting_for_results_is_bounded_and_can_go_on(peer: Peer, folder: Path) -> None:
    peer.finished = False
    code, summary, said = upload(peer, folder, "--wait-for", "0.5")
    assert (code, summary["accepted"], summary["waiting"]) == (5, 6, 6)
    assert "6 pictures have no result after 0.5 s" in said
    assert "To go on: " in said
    peer.finished = True
    code, summary, _ = upload(peer, folder, "--wait")
    assert (code, summary["done"], len(peer.requests)) == (0, 6, 3)
    assert not resume_files(folder)
