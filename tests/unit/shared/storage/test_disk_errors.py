"""Errors of the operating system become domain errors by their cause, and the log contains the cause and the path."""

import errno
import logging
import os

import pytest

from shared import telemetry
from shared.errors import DiskFull, Environment, StoreAway, StoreMisconfigured
from shared.storage import disk_errors

FOLDER = "/data/blobs/tmp"


def failure(number: int, path: str | None = None) -> OSError:
    return OSError(number, os.strerror(number), path)


@pytest.fixture(autouse=True)
def _forget_reports(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(disk_errors, "_reported", telemetry.RepeatLimit(60))
    caplog.set_level(logging.INFO, "shelfsight.error")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_has_its_own_code(number: int) -> None:
    translated = disk_errors.translate(failure(number), FOLDER)
    assert (type(translated), translated.status, translated.code) == (DiskFull, 507, "disk_full")


@pytest.mark.parametrize(("number", "remedy"), [(errno.EACCES, "owner"), (errno.EPERM, "owner"), (errno.EROFS, "read-only")])
def test_an_error_that_an_operator_must_end_has_its_own_code_and_names_the_remedy(number: int, remedy: str) -> None:
    translated = disk_errors.translate(failure(number), FOLDER)
    assert isinstance(translated, StoreMisconfigured)
    assert isinstance(translated, Environment)  # it counts against no image
    assert (translated.status, translated.code) == (503, "blobs_misconfigured")
    assert remedy in translated.detail


@pytest.mark.parametrize("number", [errno.EIO, errno.EMFILE, errno.ESTALE, errno.ENOTDIR, errno.ENOMEM])
def test_any_other_error_is_worth_a_retry(number: int) -> None:
    translated = disk_errors.translate(failure(number), FOLDER)
    assert (type(translated), translated.status, translated.code) == (StoreAway, 503, "blobs_unavailable")


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.EIO, errno.ENOSPC])
def test_a_client_sees_no_path_and_no_text_of_the_operating_system(number: int) -> None:
    translated = disk_errors.translate(failure(number, "/data/blobs/spool/secret"), FOLDER)
    assert "/data" not in str(translated)
    assert os.strerror(number) not in str(translated)
    assert translated.extra == {}


def test_the_log_contains_the_name_of_the_error_and_the_path(caplog: pytest.LogCaptureFixture) -> None:
    disk_errors.translate(failure(errno.EACCES, "/data/blobs/spool/one"), FOLDER)
    disk_errors.translate(failure(errno.EIO), FOLDER)  # for example of fdatasync, which knows no path
    disk_errors.translate(failure(errno.ENOSPC), FOLDER)
    denied, unreadable, full = [(record.levelno, record.getMessage()) for record in caplog.records]
    assert denied[0] == logging.ERROR
    assert denied[1].startswith("blob store: blobs_misconfigured: EACCES (Permission denied): /data/blobs/spool/one.")
    assert "owner" in denied[1]
    assert unreadable == (logging.WARNING, f"blob store: blobs_unavailable: EIO (Input/output error): {FOLDER}.")
    assert full == (logging.WARNING, f"blob store: disk_full: ENOSPC (No space left on device): {FOLDER}.")


def test_an_error_that_repeats_is_logged_once_per_interval_with_the_number_that_was_left_out(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        disk_errors.translate(failure(errno.EACCES, f"/data/blobs/spool/{number}"), FOLDER)
        disk_errors.translate(failure(errno.EIO), FOLDER)
    assert len(caplog.records) == 2
    monkeypatch.setattr(disk_errors._reported, "_interval_s", 0.0)
    disk_errors.translate(failure(errno.EACCES, "/data/blobs/spool/9"), FOLDER)
    assert caplog.records[-1].getMessage().endswith("This occurred 4 more times since it was last logged.")


def test_the_log_contains_both_paths_of_a_rename() -> None:
    error = OSError(errno.EACCES, os.strerror(errno.EACCES), "/data/blobs/tmp/1", None, "/data/blobs/spool/one")
    assert disk_errors.describe(error, FOLDER) == "EACCES (Permission denied): /data/blobs/tmp/1 -> /data/blobs/spool/one"


def test_a_path_in_the_log_is_one_line_of_limited_length() -> None:
    shown = disk_errors.describe(failure(errno.EIO, "/a\nb\x1b[31m" + 10_000 * "x"), FOLDER)
    assert shown.startswith("EIO (Input/output error): /a b [31mxxx")
    assert len(shown) < 600
