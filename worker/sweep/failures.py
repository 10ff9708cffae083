"""Run the parts of the sweep so that a failure in one part does not stop the other parts."""

import logging
from collections.abc import Callable
from functools import partial

from shared.errors import ShelfsightError

_log = logging.getLogger("shelfsight.error")


def succeeds(part: Callable[..., bool | None], *arguments: object) -> bool:
    """Run one part of the sweep and return its result as a boolean. If it raises an error, log it and return False."""
    try:
        return bool(part(*arguments))
    except ShelfsightError as error:
        _log.warning("sweep: %s failed: %s: %s", _name(part), error.code, error.detail)
    except Exception:  # noqa: BLE001 -- a failure in one part must not stop the other parts
        _log.exception("sweep: %s failed because of an unexpected error", _name(part))
    return False


def _name(part: Callable[..., object]) -> str:
    function = part.func if isinstance(part, partial) else part
    return f"{function.__module__.rpartition('.')[2]}.{function.__name__}"
