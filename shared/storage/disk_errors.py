"""Converts the errors of the operating system to domain errors, and logs their causes.

==================  ================================================================================================
full                There is no room for a file: ``DiskFull``.
misconfigured       The service may not access a file, or the file system is read-only: ``StoreMisconfigured``. An
                    operator must act.
unavailable         All other errors, for example a disk that cannot be read or too many open files: ``StoreAway``.
==================  ================================================================================================
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from shared import telemetry
from shared.errors import DiskFull, Environment, StoreAway, StoreMisconfigured

_FULL: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_DENIED: Final = {errno.EACCES, errno.EPERM}
_NO_ACCESS: Final = "The service has no access to a file or folder of the blob store. The operator finds its path in the log, and must correct its owner or its permissions."
_READ_ONLY: Final = "The file system of the blob store is read-only. The operator must find out why, and mount it writable."
_MISCONFIGURED: Final = "blobs_misconfigured"
_UNAVAILABLE: Final = "blobs_unavailable"
_RETRY_AFTER_S: Final = 5
_OPERATOR_S: Final = 30
_MAX_PATH: Final = 500
_reported = telemetry.RepeatLimit(telemetry.REPEAT_INTERVAL_S)


@contextmanager
def translate_disk_errors(path: Path) -> Iterator[None]:
    """Convert the errors of the operating system to domain errors.

    :param path: the path to log if an error does not contain one.
    :raises DiskFull: when there is no disk space.
    :raises StoreAway: when any other error occurs.
    """
    try:
        yield
    except OSError as error:
        raise translate(error, path) from error


def translate(error: OSError, path: str | Path) -> Environment:
    """Return the domain error for an error of the operating system, and log the cause.

    The sentence of the domain error contains no path, because a client can see it.

    :param path: the path to log if the error does not contain one.
    """
    translated = _classify(error)
    omitted = _reported.count_omitted(error.errno)
    if omitted is not None:
        misconfigured = isinstance(translated, StoreMisconfigured)
        log = telemetry.errors.error if misconfigured else telemetry.errors.warning
        remedy = f" {translated.detail}" if misconfigured else ""
        more = f" This occurred {omitted} more times since it was last logged." if omitted else ""
        log("blob store: %s: %s.%s%s", translated.code, describe(error, path), remedy, more)
    return translated


def describe(error: BaseException | None, path: str | Path = "unknown path") -> str:
    """Return the name of an error of the operating system and its path in one line, for the log.

    The error of a rename has two paths.
    """
    if not isinstance(error, OSError) or error.errno is None:
        return type(error).__name__
    found = " -> ".join(str(name) for name in (error.filename or path, error.filename2) if name)
    text = "".join(character if character.isprintable() else " " for character in found)
    return f"{errno.errorcode.get(error.errno, error.errno)} ({os.strerror(error.errno)}): {text[:_MAX_PATH]}"


def _classify(error: OSError) -> Environment:
    if error.errno in _FULL:
        return DiskFull("The disk of the blob store is full; retry later.", retry_after=30)
    if error.errno in _DENIED:
        return StoreMisconfigured(_NO_ACCESS, code=_MISCONFIGURED, retry_after=_OPERATOR_S)
    if error.errno == errno.EROFS:
        return StoreMisconfigured(_READ_ONLY, code=_MISCONFIGURED, retry_after=_OPERATOR_S)
    return StoreAway("The blob store does not respond; retry later.", code=_UNAVAILABLE, retry_after=_RETRY_AFTER_S)
