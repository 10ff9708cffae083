"""The file of the signing keys: a rotation keeps what is still needed, breaks no token, and leaves the file whole."""

import base64
import fcntl
import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from shared.accounts import signing_key_file
from shared.accounts.sessions import LIFETIME
from shared.accounts.signed_urls import UrlSigner
from shared.accounts.signing_key_file import (
    MAX_KEYS,
    CannotRotate,
    Rotation,
    dump_url_keys,
    rotate,
)
from shared.accounts.signing_keys import SIGNS_AFTER_S, SigningKeyFile
from shared.accounts.tokens import TokenSigner

NOW = datetime(2026, 11, 30, 15, 4, 55, tzinfo=UTC)
LONG_AGO = timedelta(days=400)
OLD = {"1": "8f14e45fceea167a5a36dedd4bea2543c4ca4238a0b923820dcc509a6f75849b"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "signing_keys"


def save(path: Path, keys: dict[str, str], at: datetime = NOW - LONG_AGO) -> None:
    """Write a file that was changed for the last time at a time."""
    path.write_text(json.dumps(keys))
    set_time(path, at)


def set_time(path: Path, at: datetime) -> None:
    os.utime(path, (at.timestamp(), at.timestamp()))


def rotate_at(path: Path, at: datetime, *, drop_old: bool = False) -> Rotation:
    """Rotate the keys at a time of the test."""
    rotation = rotate(path, LIFETIME, drop_old=drop_old, now=at)
    set_time(path, at)
    return rotation


def new_key(number: int) -> str:
    return f"{number:02d}5d41402abc4b2a76b9719d911017c592ae2b1fca515949e5d54fb22b8ed9"


def test_a_new_file_has_one_key_whose_id_is_the_time_of_its_creation(path: Path) -> None:
    signing_key_file.create(path)
    (key_id,) = signing_key_file.read(path)
    created = signing_key_file.created_at(key_id)
    assert created is not None
    assert abs(created - datetime.now(UTC)) < timedelta(minutes=1)
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(path.parent.iterdir()) == [path]


def test_the_new_key_comes_first_and_that_of_the_version_before_stays(path: Path) -> None:
    save(path, OLD)
    rotation = rotate_at(path, NOW)
    assert rotation == Rotation("20261130T150455Z", NOW + timedelta(seconds=SIGNS_AFTER_S), ("1",), ())
    found = json.loads(path.read_text())
    assert list(found) == ["20261130T150455Z", "1"]
    assert found["1"] == OLD["1"]
    assert found["20261130T150455Z"] not in OLD.values()


def test_a_time_of_change_far_in_the_future_does_not_prevent_a_rotation(path: Path) -> None:
    save(path, OLD, NOW + timedelta(seconds=5))  # clocks may differ by seconds
    with pytest.raises(CannotRotate, match="try again in 36 s"):
        rotate(path, LIFETIME, now=NOW)
    set_time(path, NOW + timedelta(days=1))
    assert rotate(path, LIFETIME, now=NOW).kept == ("1",)


def test_a_key_is_dropped_when_nothing_that_it_has_signed_can_be_valid(path: Path) -> None:
    save(path, OLD)
    first = rotate_at(path, NOW)
    second = rotate_at(path, NOW + timedelta(days=30))
    assert second.kept == (first.created, "1")  # within the margin for clocks that differ
    third = rotate_at(path, NOW + timedelta(days=30, hours=2))
    assert (third.kept, third.dropped) == ((second.created, first.created), ("1",))
    last = rotate_at(path, NOW + timedelta(days=61))
    assert (last.kept, last.dropped) == ((third.created,), (second.created, first.created))


def test_a_key_stays_if_nobody_knows_since_when_it_is_not_used(path: Path) -> None:
    save(path, {"2026-11": new_key(1), "2026-01": new_key(2)})
    assert rotate_at(path, NOW).kept == ("2026-11", "2026-01")


def test_more_keys_than_allowed_are_refused_and_the_sentence_says_until_when(path: Path) -> None:
    save(path, OLD)
    for day in range(MAX_KEYS - 1):
        rotate_at(path, NOW + timedelta(days=day))
    before = path.read_text()
    with pytest.raises(CannotRotate, match=r"There are 5 signing keys.*; wait until 2026-12-30 16:05 UTC, .* or drop all old keys, which ends all sessions"):
        rotate_at(path, NOW + timedelta(days=4))
    assert path.read_text() == before
    assert rotate_at(path, NOW + timedelta(days=30, hours=2)).dropped == ("1",)
    save(path, {f"key-{number}": new_key(number) for number in range(MAX_KEYS)})
    with pytest.raises(CannotRotate, match="and 5 keys are allowed; drop all old keys"):
        rotate_at(path, NOW)


def test_dropping_the_old_keys_leaves_only_a_new_one_which_signs_at_once(path: Path) -> None:
    save(path, OLD)
    first = rotate_at(path, NOW)
    second = rotate_at(path, NOW, drop_old=True)
    assert second.signs_at == NOW
    assert (second.kept, second.dropped) == ((), (first.created, "1"))
    assert list(signing_key_file.read(path)) == [second.created]
    assert second.created != first.created


def test_a_rotation_waits_until_the_newest_key_signs(path: Path) -> None:
    save(path, OLD, NOW - timedelta(seconds=12))
    with pytest.raises(CannotRotate, match=r"have changed just now.*try again in 19 s"):
        rotate(path, LIFETIME, now=NOW)
    assert json.loads(path.read_text()) == OLD
    rotate(path, LIFETIME, now=NOW + timedelta(seconds=18))


def test_of_two_rotations_at_once_one_is_refused(path: Path) -> None:
    save(path, OLD)
    with locked(path.parent), pytest.raises(CannotRotate, match="Another process is replacing"):
        rotate(path, LIFETIME, now=NOW)
    assert json.loads(path.read_text()) == OLD
    rotate(path, LIFETIME, now=NOW)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder, as another process does during a rotation."""
    handle = os.open(folder, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    yield
    os.close(handle)


@pytest.mark.parametrize("drop_old", [False, True], ids=["keep", "drop"])
def test_a_rotation_that_is_interrupted_leaves_nginx_no_dropped_key_and_is_done_by_the_next(path: Path, *, drop_old: bool) -> None:
    save(path, OLD)
    url_keys = path.with_name("url_keys.json")
    url_keys.write_text(dump_url_keys({"1": OLD["1"].encode()}))
    obstacle = path.with_name(".signing_keys.new")  # so the process ends after it has written the keys of nginx
    obstacle.mkdir()
    with pytest.raises(OSError, match=r"signing_keys\.new"):
        rotate(path, LIFETIME, drop_old=drop_old, url_keys=url_keys, now=NOW)
    assert json.loads(path.read_text()) == OLD
    assert json.loads(url_keys.read_text()).keys() == {"20261130T150455Z"} | (set() if drop_old else {"1"})
    obstacle.rmdir()
    rotation = rotate(path, LIFETIME, drop_old=drop_old, url_keys=url_keys, now=NOW + timedelta(seconds=1))
    assert ("1" in rotation.kept) is not drop_old
    assert url_keys.read_text() == dump_url_keys(signing_key_file.read(path))


def test_the_keys_of_nginx_are_brought_up_to_date_when_it_is_too_early_for_a_rotation(path: Path) -> None:
    save(path, OLD, NOW)
    path.chmod(0o440)
    url_keys = path.with_name("url_keys.json")
    url_keys.write_text(dump_url_keys({"dropped": new_key(1).encode()}))
    with pytest.raises(CannotRotate, match="have changed just now"):
        rotate(path, LIFETIME, url_keys=url_keys, now=NOW)
    assert url_keys.read_text() == dump_url_keys({"1": OLD["1"].encode()})
    assert url_keys.stat().st_mode & 0o777 == 0o440  # as that of the signing keys
    assert sorted(path.parent.iterdir()) == [path, url_keys]


def test_of_many_simultaneous_rotations_exactly_one_adds_a_key(path: Path) -> None:
    signing_key_file.create(path)
    set_time(path, datetime.now(UTC) - timedelta(minutes=1))
    refused: list[CannotRotate] = []
    barrier = threading.Barrier(8)

    def run() -> None:
        barrier.wait()
        try:
            rotate(path, LIFETIME)
        except CannotRotate as error:
            refused.append(error)

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == 7
    assert len(signing_key_file.read(path)) == 2


def test_the_mode_of_the_file_and_a_link_to_it_stay(path: Path) -> None:
    save(path, OLD)
    path.chmod(0o400)
    link = path.with_name("link")
    link.symlink_to(path)
    path.with_name(".signing_keys.new").write_text("left behind by a crash")
    rotate(link, LIFETIME, now=NOW)
    assert link.is_symlink()
    assert len(signing_key_file.read(path)) == 2
    assert path.stat().st_mode & 0o777 == 0o400
    assert sorted(path.parent.iterdir()) == sorted([path, link])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to other users")
def test_the_owner_of_the_file_stays(path: Path) -> None:
    save(path, OLD)
    os.chown(path, 10001, 10002)
    rotate(path, LIFETIME, now=NOW)
    assert (path.stat().st_uid, path.stat().st_gid) == (10001, 10002)


@pytest.mark.parametrize("content", [b"{", b"\xff", json.dumps(OLD | {"2": "short secret"}).encode()], ids=["no-json", "no-text", "short"])
def test_a_damaged_file_stays_and_the_sentence_contains_no_secret(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    set_time(path, NOW - LONG_AGO)
    with pytest.raises(ValueError, match=r"signing_keys are damaged: ") as refused:
        rotate(path, LIFETIME, drop_old=True, now=NOW)
    assert "short secret" not in str(refused.value)
    assert path.read_bytes() == content


class Process:
    """What a web process does with the signing keys. Its clocks are that of the test."""

    def __init__(self, path: Path, clock: Callable[[], float]) -> None:
        keys = SigningKeyFile(path, clock, clock)
        self.tokens, self.urls = TokenSigner(keys, clock), UrlSigner(keys, 3600, clock)


@pytest.mark.parametrize("interval_s", [0.5, 1.75], ids=["busy", "idle"])
def test_no_token_and_no_url_breaks_during_rotations_while_processes_read_the_file_at_different_times(path: Path, interval_s: float) -> None:
    """Each process signs, and every other one checks at once; after each rotation, also what was signed at the beginning."""
    save(path, OLD)
    start = now = NOW.timestamp()

    def clock() -> float:
        return now

    processes = []
    for _ in range(3):  # they look for a change every two seconds, so at different times
        processes.append(Process(path, clock))
        now += 0.5
    first_token = processes[0].tokens.issue_refresh("u", "s", 0, start + 3000)
    first_url = processes[0].urls.begin()
    signature = first_url.query("/uploads/1").removeprefix("?signature=").partition("&")[0]
    rotations = [datetime.fromtimestamp(start + at, UTC) for at in (5, 36, 67)]
    key_ids = set()
    turn = 0
    while now < start + 110:
        if rotations and now >= rotations[0].timestamp():
            rotate_at(path, datetime.fromtimestamp(now, UTC))
            rotations.pop(0)
        order = processes[turn % 3 :] + processes[: turn % 3]  # another one is the first to notice a change
        for signer in order:
            token, _ = signer.tokens.issue_access("u", "s")
            key_ids.add(json.loads(decode(token.partition(".")[0]))["kid"])
            url = signer.urls.begin()
            query = url.query("/uploads/2").removeprefix("?signature=").partition("&")[0]
            for reader in reversed(order):
                reader.tokens.read_access(token)
                reader.tokens.read_refresh(first_token)
                assert reader.urls.is_valid("/uploads/2", query, str(url.expires))
                assert reader.urls.is_valid("/uploads/1", signature, str(first_url.expires))
        now += interval_s
        turn += 1
    assert len(key_ids) == 4  # each of the keys has signed


def decode(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
