"""Signing keys: a changed file is read again, and its new key signs only after every process has read it."""

import json
import logging
import os
from pathlib import Path

import pytest

from shared.accounts.signing_keys import SIGNS_AFTER_S, FixedSigningKeys, SigningKeyFile, derive_key, open_signing_keys
from shared.settings import Access

OLD, NEW = "0123456789abcdefghijklmnopqrstuv", "zyxwvutsrqponmlkjihgfedcba987654"
WRITTEN_AT = 1_700_000_000


class Clock:
    """A clock that stands still until it is moved. It shows both the monotonic and the wall-clock time."""

    def __init__(self) -> None:
        self.now = float(WRITTEN_AT)

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "signing_keys"


@pytest.fixture
def clock() -> Clock:
    return Clock()


def write(path: Path, text: str, written_at: float = WRITTEN_AT) -> None:
    path.write_text(text)
    os.utime(path, (written_at, written_at))


def test_the_first_of_the_keys_in_the_environment_signs() -> None:
    keys = open_signing_keys(Access(access="on", signing_keys=json.dumps({"new": NEW, "old": OLD}))).current()
    assert (keys.signing_id, list(keys.secrets)) == ("new", ["new", "old"])
    assert FixedSigningKeys({}).current().signing_id is None
    assert open_signing_keys(Access()).current().signing_id is None


def test_the_environment_takes_precedence_over_the_file(path: Path) -> None:
    write(path, json.dumps({"of the file".replace(" ", "-"): OLD}))
    assert open_signing_keys(Access(signing_keys=json.dumps({"new": NEW}), signing_keys_file=path)).current().signing_id == "new"
    assert open_signing_keys(Access(signing_keys_file=path)).current().signing_id == "of-the-file"


def test_a_single_key_signs_at_once(path: Path, clock: Clock) -> None:
    write(path, json.dumps({"old": OLD}))
    assert SigningKeyFile(path, clock, clock).current().signing_id == "old"


def test_a_new_key_is_valid_within_seconds_and_signs_later(path: Path, clock: Clock) -> None:
    write(path, json.dumps({"old": OLD}), WRITTEN_AT - 3600)
    file = SigningKeyFile(path, clock, clock)
    write(path, json.dumps({"new": NEW, "old": OLD}))
    assert list(file.current().secrets) == ["old"]  # the file is not looked at for each request
    clock.now += 2
    assert (list(file.current().secrets), file.current().signing_id) == (["new", "old"], "old")
    clock.now = WRITTEN_AT + SIGNS_AFTER_S - 1
    assert file.current().signing_id == "old"
    clock.now = WRITTEN_AT + SIGNS_AFTER_S + 2
    assert file.current().signing_id == "new"


def test_a_process_that_starts_during_a_rotation_signs_with_the_same_key_as_the_others(path: Path, clock: Clock) -> None:
    write(path, json.dumps({"new": NEW, "old": OLD}))
    clock.now += 1
    assert SigningKeyFile(path, clock, clock).current().signing_id == "old"


def test_a_removed_key_is_no_longer_valid(path: Path, clock: Clock) -> None:
    write(path, json.dumps({"new": NEW, "old": OLD}), WRITTEN_AT - 3600)
    file = SigningKeyFile(path, clock, clock)
    write(path, json.dumps({"new": NEW}))
    clock.now += 2
    assert (list(file.current().secrets), file.current().signing_id) == (["new"], "new")


@pytest.mark.parametrize("text", ["", "{}", '{"a": "short"}', None], ids=["empty", "no keys", "short", "deleted"])
def test_a_damaged_file_changes_nothing_and_is_reported(path: Path, clock: Clock, text: str | None, caplog: pytest.LogCaptureFixture) -> None:
    write(path, json.dumps({"old": OLD}), WRITTEN_AT - 3600)
    file = SigningKeyFile(path, clock, clock)
    if text is None:
        path.unlink()
    else:
        write(path, text)
    clock.now += 2
    with caplog.at_level(logging.ERROR, "shelfsight.error"):
        assert file.current().signing_id == "old"
    assert any("cannot read the signing keys again" in record.getMessage() for record in caplog.records)
    write(path, json.dumps({"new": NEW}), WRITTEN_AT + 5)
    clock.now += 2
    assert file.current().signing_id == "new"


def test_a_damaged_file_is_reported_once_per_change(path: Path, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    write(path, json.dumps({"old": OLD}), WRITTEN_AT - 3600)
    file = SigningKeyFile(path, clock, clock)

    def reports(text: str) -> int:
        caplog.clear()
        write(path, text, WRITTEN_AT - 3600)
        with caplog.at_level(logging.ERROR, "shelfsight.error"):
            for _ in range(5):
                clock.now += 2
                file.current()
        return sum(record.levelno == logging.ERROR for record in caplog.records)

    whole = json.dumps({"old": OLD})
    assert [reports(text) for text in ("{}", '{"a": 1}', "[]", whole, "{}", whole)] == [1, 0, 0, 0, 1, 0]
    assert [reports(text) for text in ('{"a": "short"}', "{}")] == [1, 1]


def test_a_time_of_change_in_the_future_does_not_keep_the_old_key_signing(path: Path, clock: Clock) -> None:
    write(path, json.dumps({"new": NEW, "old": OLD}), WRITTEN_AT + 86_400)
    file = SigningKeyFile(path, clock, clock)
    assert file.current().signing_id == "old"
    clock.now += SIGNS_AFTER_S + 1
    assert file.current().signing_id == "new"


@pytest.mark.parametrize("text", ["", "{}", '{"a": "short"}', None], ids=["empty", "no keys", "short", "missing"])
def test_a_service_does_not_start_without_valid_keys(path: Path, text: str | None) -> None:
    if text is not None:
        write(path, text)
    with pytest.raises((ValueError, FileNotFoundError)):
        SigningKeyFile(path)


def test_derived_keys_differ_by_purpose_and_by_key() -> None:
    keys = FixedSigningKeys({"new": NEW.encode(), "old": OLD.encode()}).current()
    urls, others = keys.derive("URLs"), keys.derive("others")
    assert list(urls) == ["new", "old"]
    assert len({*urls.values(), *others.values(), NEW.encode(), OLD.encode()}) == 6
    assert urls["new"] == derive_key(NEW.encode(), "URLs")
    assert len(urls["new"]) == 64
