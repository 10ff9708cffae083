"""Errors of MongoDB's driver become domain errors by their cause, and the log contains what the server said."""

import logging

import pytest
from pymongo import errors as driver

from shared import telemetry
from shared.errors import Environment, ShelfsightError, StoreAway, StoreMisconfigured, StoreRefused, TooSlow
from shared.storage import mongo_errors

NO_INDEX = "planner returned error :: caused by :: hint provided does not correspond to an existing index"


def failure(code: int, message: str = "a message", **details: object) -> driver.OperationFailure:
    return driver.OperationFailure(message, code, {"code": code, "errmsg": message, **details})


def write_error(code: int, message: str = "a message") -> driver.BulkWriteError:
    return driver.BulkWriteError({"writeErrors": [{"index": 0, "code": code, "errmsg": message}], "writeConcernErrors": []})


def write_concern_error(code: int) -> driver.BulkWriteError:
    return driver.BulkWriteError({"writeErrors": [], "writeConcernErrors": [{"code": code, "errmsg": "waiting for replication timed out"}]})


@pytest.fixture(autouse=True)
def _forget_reports(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(mongo_errors, "_reported", telemetry.RepeatLimit(60))
    caplog.set_level(logging.INFO, "shelfsight.error")


@pytest.mark.parametrize(
    "error",
    [
        driver.ServerSelectionTimeoutError("no primary, Timeout: 3.0s, Topology: 'AuthenticationFailed' of another server"),
        driver.AutoReconnect("connection closed"),
        driver.NetworkTimeout("timed out"),
        driver.NotPrimaryError("not primary", {"code": 10107}),
        driver.WaitQueueTimeoutError("the pool is full"),
        driver.ProtocolError("a broken reply"),
        driver.WTimeoutError("waiting for replication timed out", 64, {}),
        driver.CursorNotFound("cursor not found", 43, {}),
        driver.DuplicateKeyError("duplicate", 11000, {}),
        failure(11600),
        failure(112),
        failure(262),
        failure(14031),
        failure(12345, errorLabels=["TransientTransactionError"]),
        failure(12345, errorLabels=["RetryableWriteError"]),
        write_error(11600),
        write_concern_error(64),
    ],
    ids=lambda error: f"{type(error).__name__} {getattr(error, 'code', '')}",
)
def test_an_error_that_ends_by_itself_is_worth_a_retry(error: driver.PyMongoError) -> None:
    translated = mongo_errors.translate(error)
    assert (type(translated), translated.status, translated.code) == (StoreAway, 503, "database_unavailable")
    assert translated.retry_after == 2
    assert mongo_errors.is_unavailable(error)


def test_an_operation_that_exceeds_its_own_time_limit_is_too_slow() -> None:
    error = driver.ExecutionTimeout("operation exceeded time limit", 50, {})
    assert type(mongo_errors.translate(error)) is TooSlow


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (failure(2, NO_INDEX), "scripts/admin migrate"),
        (failure(291, NO_INDEX), "scripts/admin migrate"),
        (failure(27, "text index required"), "scripts/admin migrate"),
        (write_error(2, NO_INDEX), "scripts/admin migrate"),
        (failure(13, "not authorized on shelfsight"), "MONGODB_URL"),
        (failure(18, "Authentication failed."), "MONGODB_URL"),
        (driver.ServerSelectionTimeoutError("Authentication failed., full error: {'codeName': 'AuthenticationFailed'}, Timeout: 3.0s, T"), "MONGODB_URL"),
        (failure(20, "Transaction numbers are only allowed on a replica set member"), "log"),
        (driver.ConfigurationError("the server is too old"), "log"),
    ],
    ids=lambda value: f"{type(value).__name__} {getattr(value, 'code', '')}" if isinstance(value, Exception) else None,
)
def test_an_error_that_an_operator_must_end_has_its_own_code_and_names_the_remedy(error: driver.PyMongoError, remedy: str) -> None:
    translated = mongo_errors.translate(error)
    assert isinstance(translated, StoreMisconfigured)
    assert isinstance(translated, Environment)  # it counts against no image
    assert (translated.status, translated.code) == (503, "database_misconfigured")
    assert remedy in translated.detail
    assert not mongo_errors.is_unavailable(error)


@pytest.mark.parametrize(
    "error",
    [failure(2, "a bad value"), failure(9), failure(121), failure(10334), write_error(40), driver.InvalidOperation("the client is closed")],
    ids=lambda error: f"{type(error).__name__} {getattr(error, 'code', '')}",
)
def test_any_other_refusal_is_an_internal_error_without_advice_to_retry(error: driver.PyMongoError) -> None:
    translated = mongo_errors.translate(error)
    assert type(translated) is StoreRefused
    assert not isinstance(translated, Environment)
    assert (translated.status, translated.code, translated.retry_after) == (500, "internal_error", None)


@pytest.mark.parametrize("error", [failure(13, "secret"), failure(112, "secret"), failure(9, "secret"), write_error(40, "secret")])
def test_a_client_sees_nothing_that_the_server_said(error: driver.PyMongoError) -> None:
    translated: ShelfsightError = mongo_errors.translate(error)
    assert "secret" not in str(translated)
    assert translated.extra == {}


def test_the_log_contains_the_code_its_name_and_the_message_of_the_server(caplog: pytest.LogCaptureFixture) -> None:
    mongo_errors.translate(failure(13, "not authorized\non shelfsight", codeName="Unauthorized"))
    mongo_errors.translate(failure(2, NO_INDEX, codeName="BadValue"))
    mongo_errors.translate(write_error(40, "a conflict"))
    mongo_errors.translate(driver.AutoReconnect("127.0.0.1:1: connection refused"))
    unauthorized, missing, refused, away = [(record.levelno, record.getMessage()) for record in caplog.records]
    assert unauthorized[0] == logging.ERROR
    assert "database_misconfigured: code 13 (Unauthorized): not authorized on shelfsight." in unauthorized[1]
    assert f"code 2 (BadValue): {NO_INDEX}." in missing[1]
    assert "scripts/admin migrate" in missing[1]
    assert "internal_error: code 40 (write error): a conflict." in refused[1]
    assert away == (logging.WARNING, "MongoDB: database_unavailable: AutoReconnect: 127.0.0.1:1: connection refused.")


def test_an_error_that_repeats_is_logged_once_per_interval_with_the_number_that_was_left_out(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(5):
        mongo_errors.translate(failure(13))
        mongo_errors.translate(failure(18))
    assert len(caplog.records) == 2
    monkeypatch.setattr(mongo_errors._reported, "_interval_s", 0.0)
    mongo_errors.translate(failure(13))
    assert caplog.records[-1].getMessage().endswith("This occurred 4 more times since it was last logged.")


def test_a_logged_message_is_one_line_of_limited_length() -> None:
    shown = mongo_errors.describe(failure(2, "a\nb\x1b[31m" + 10_000 * "x"))
    assert shown.startswith("code 2 (OperationFailure): a b [31mxxx")
    assert len(shown) < 600
