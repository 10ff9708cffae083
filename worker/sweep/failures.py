"""Failures of one part of the sweep do not stop the others."""

import logging
from collections.abc import Callable
from functools import partial

from shared.errors import ShelfsightError

_log = logging.getLogger("shelfsight.error")


def succeeds(part: Callable[..., bool | None], *arguments: object) -> bool:
    """Run a part and return its result as a boolean; log any failure and return False."""
    try:
        return bool(part(*arguments))
    except ShelfsightError as error:
        _log.warning("sweep: %s: %s", _name(part), error.code)
    except Exception:  # noqa: BLE001 -- any failure of a part must not stop the others
        _log.exception("sweep: %s", _name(part))
    return False


def _name(part: Callable[..., object]) -> str:
    function = part.func if isinstance(part, partial) else part
    return f"{function.__module__.rpartition('.')[2]}.{function.__name__}"
