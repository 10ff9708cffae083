"""The API key with which images are uploaded, from an option, a file or the environment.

No message contains the key. It does not contain the name of a file that cannot be read either, because a user may have
given the key instead of the file.
"""

import os
import shlex
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final

from scripts.client.groups import UsageError

OPTION: Final = "--api-key"
FILE_OPTION: Final = "--api-key-file"
VARIABLE: Final = "SHELFSIGHT_API_KEY"
_MAX_LINE: Final = 65536


def find_api_key(option: str | None, file: Path | None, warn: Callable[[str], None]) -> str | None:
    """Return the API key in ``option``, else in the first line of ``file``, else in the environment; None if it is in none of them.

    :param warn: called with a sentence if other users can read the file.
    :raises UsageError: when the option or the line is empty, the file cannot be read, or the key cannot be sent as a header.
    """
    if option is not None:
        return _check(option, OPTION)
    if file is not None:
        return _check(_read_first_line(file, warn), f"The first line of the file in {FILE_OPTION}")
    text = os.environ.get(VARIABLE, "")
    return _check(text, VARIABLE) if text.strip() else None


def without_key(arguments: list[str]) -> list[str]:
    """Return the arguments of a command line without the option that contains the key."""
    kept: list[str] = []
    is_key = False
    for argument in arguments:
        if not is_key and argument != OPTION and not argument.startswith(f"{OPTION}="):
            kept.append(argument)
        is_key = argument == OPTION and not is_key
    return kept


def _read_first_line(path: Path, warn: Callable[[str], None]) -> str:
    try:
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            mode = os.fstat(file.fileno()).st_mode
            line = file.readline(_MAX_LINE)
    except OSError as error:
        raise UsageError(f"The file in {FILE_OPTION} cannot be read: {error.strerror}") from None
    if stat.S_ISREG(mode) and mode & (stat.S_IRGRP | stat.S_IROTH):
        warn(f"Other users of this machine can read the API key in {path}. To prevent this, run: chmod 600 {shlex.quote(str(path))}")
    return line


def _check(text: str, source: str) -> str:
    key = text.strip()
    if not key:
        raise UsageError(f"{source} is empty; it must be an API key.")
    if not (key.isascii() and key.isprintable()):
        raise UsageError(f"{source} contains characters that are not allowed in an API key.")
    return key
