"""Converts the errors of MongoDB's driver to domain errors, and logs their causes.

An error belongs to one of four kinds:

==================  ================================================================================================
unavailable         MongoDB does not respond, is changing its primary, or is too busy: ``StoreAway``. A retry helps.
too slow            The operation exceeded its own time limit: ``TooSlow``.
misconfigured       MongoDB responds, but refuses all operations of a kind until an operator acts: an index is missing,
                    or the user has no access: ``StoreMisconfigured``.
refused             MongoDB refuses this operation, which is a defect of the service: ``StoreRefused``.
==================  ================================================================================================

The codes are those of https://www.mongodb.com/docs/manual/reference/error-codes/.
"""

from typing import Final

from pymongo.errors import (
    BulkWriteError,
    ConfigurationError,
    ConnectionFailure,
    ExecutionTimeout,
    OperationFailure,
    ProtocolError,
    PyMongoError,
    ServerSelectionTimeoutError,
    WriteConcernError,
)

from shared import telemetry
from shared.errors import ShelfsightError, StoreAway, StoreMisconfigured, StoreRefused, TooSlow

_MAX_MESSAGE: Final = 500

_TEMPORARY_LABELS: Final = ("TransientTransactionError", "RetryableWriteError", "UnknownTransactionCommitResult", "SystemOverloadedError")
_TEMPORARY: Final = frozenset(
    {
        6, 7, 74, 89, 202, 317, 9001,  # the network
        91, 133, 189, 216, 10058, 10107, 11600, 11602, 13435, 13436,  # the server stops, or the primary changes
        24, 46, 50, 112, 261, 262, 290, 365, 462,  # busy
        64, 100, 134, 14031,  # a write is not replicated in time, or the disk is full
        43, 175, 225, 237, 239, 246, 251, 279, 11601,  # a cursor, snapshot, session or operation was ended
        11000,  # another process has inserted the same document
    }
)  # fmt: skip
_TEMPORARY_KINDS: Final = frozenset({StoreAway, TooSlow})
_UNAUTHORIZED: Final = frozenset({13, 18})
_INDEX_NOT_FOUND: Final = 27
_UNSUPPORTED: Final = frozenset({20, 59, 76, 79, 115, 123, 148})
"""Codes of a server that lacks a function, for example because it is no member of a replica set."""
_HINT: Final = frozenset({2, 291, 17007})
"""Codes of a query with a hint that names a missing index. Other errors have the same codes, but another message."""

_LOGIN_FAILED: Final = "AuthenticationFailed"
_TOPOLOGY: Final = ", Timeout: "
"""When a server refuses a login, the driver regards the server as unknown. While it does, further operations fail because
there is no server to select. The message of this error begins with the server's answer, as text, and then describes the
topology at length."""

_MISSING_INDEX: Final = "The database lacks an index that the service needs. The operator must run `scripts/admin migrate`."
_NO_ACCESS: Final = "The database refuses the user name, the password or the privileges of the service. The operator must check MONGODB_URL."
_NO_SUPPORT: Final = "The database server lacks a function that the service needs. The operator finds the reason in the log."
_RETRY_AFTER_S: Final = 2
_OPERATOR_S: Final = 30


def translate(error: PyMongoError) -> ShelfsightError:
    """Return the domain error for an error of the driver, and log the cause.

    The sentence of the domain error contains nothing from the driver's error, because a client can see it.
    """
    kind = _classify(error)
    _report(error, kind)
    return kind


def is_unavailable(error: PyMongoError) -> bool:
    """Return whether the cause of an error is that MongoDB does not respond or is busy, so that a retry can help."""
    return type(_classify(error)) in _TEMPORARY_KINDS


def describe(error: BaseException | None) -> str:
    """Return the type, the code and the message of an error in one line, for the log and for operators."""
    if error is None:
        return "unknown"
    code, name, message = _details(error)
    text = "".join(character if character.isprintable() else " " for character in message)
    shown = f"code {code} ({name}): " if code is not None else f"{type(error).__name__}: "
    return shown + " ".join(text.split())[:_MAX_MESSAGE]


def _classify(error: PyMongoError) -> ShelfsightError:
    if isinstance(error, ExecutionTimeout):
        return TooSlow("The query took too long; use cursor=newest or a narrower filter.")
    if remedy := _find_remedy(error):
        return StoreMisconfigured(remedy, retry_after=_OPERATOR_S)
    if _is_temporary(error):
        return StoreAway("The database does not respond; retry later.", retry_after=_RETRY_AFTER_S)
    return StoreRefused("The database refuses an operation of the service. Report the request ID to the operator, who can find the reason in the log.")


def _find_remedy(error: PyMongoError) -> str | None:
    """Return what an operator must do, or None if the cause is none that an operator can remove."""
    code, _, message = _details(error)
    if code in _UNAUTHORIZED or (isinstance(error, ServerSelectionTimeoutError) and _LOGIN_FAILED in message):
        return _NO_ACCESS
    if code == _INDEX_NOT_FOUND or (code in _HINT and "hint" in message and "index" in message):
        return _MISSING_INDEX
    return _NO_SUPPORT if code in _UNSUPPORTED or isinstance(error, ConfigurationError) else None


def _is_temporary(error: PyMongoError) -> bool:
    return (
        isinstance(error, ConnectionFailure | ProtocolError | WriteConcernError)
        or any(map(error.has_error_label, _TEMPORARY_LABELS))
        or _details(error)[0] in _TEMPORARY
    )


def _details(error: BaseException) -> tuple[int | None, str, str]:
    """Return the code, the name of the code, and the message that the server sent.

    The error of a bulk write has only a general code. In its place, this function returns that of its first error.
    """
    if not isinstance(error, OperationFailure):
        return None, "", str(error).partition(_TOPOLOGY)[0]
    details = error.details or {}
    if isinstance(error, BulkWriteError):
        details = next(iter([*details.get("writeErrors", ()), *details.get("writeConcernErrors", ())]), details)
        return details.get("code", error.code), details.get("codeName", "write error"), str(details.get("errmsg", error))
    return error.code, str(details.get("codeName", type(error).__name__)), str(details.get("errmsg", error))


_reported = telemetry.RepeatLimit(telemetry.REPEAT_INTERVAL_S)


def _report(error: PyMongoError, translated: ShelfsightError) -> None:
    omitted = _reported.count_omitted((type(error).__name__, _details(error)[0]))
    if omitted is None:
        return
    log = telemetry.errors.warning if type(translated) in _TEMPORARY_KINDS else telemetry.errors.error
    more = f" This occurred {omitted} more times since it was last logged." if omitted else ""
    remedy = f" {translated.detail}" if isinstance(translated, StoreMisconfigured) else ""
    traceback = error if isinstance(translated, StoreRefused) else None
    log("MongoDB: %s: %s.%s%s", translated.code, describe(error).rstrip("."), remedy, more, exc_info=traceback)
