"""Parse a JSON body with a limit on the number of its values, which bounds the memory that parsing takes."""

from typing import Any, Final

from pydantic_core import from_json

from shared.errors import MalformedJson, TooLarge

_ALL_BUT_MARKS: Final = bytes(set(range(256)) - set(b',[{"'))


def parse_json(body: bytes, max_values: int) -> Any:
    """Parse JSON. The caller keeps no reference to ``body``, so that its memory is free before anything is decoded.

    :raises TooLarge: ``too_many_values``.
    :raises MalformedJson: ``body`` is not JSON.
    """
    _check_value_count(body, max_values)
    try:
        return from_json(body, allow_inf_nan=False, cache_strings="keys")
    except ValueError as error:
        position = str(error).rsplit(" at ", 1)[-1] if " at line " in str(error) else "an unknown place"
        raise MalformedJson(f"The body is not JSON (at {position}).") from None


def _check_value_count(body: bytes, max_values: int) -> None:
    """Count values without parsing: each value follows ``,``, ``[`` or ``{``, and base64 contains none of the three."""
    if sum(map(body.count, (b",", b"[", b"{"))) <= max_values:  # fast, and nearly always sufficient
        return
    # Marks within strings do not count. A mark outside of strings has an even number of quotes before it. So remove
    # escaped characters, which end no string, and pairs of adjacent quotes, which change no parity; then split at the
    # quotes and count every second piece. Between the remaining quotes are marks, so a bounded number of pieces is
    # enough to exceed the limit.
    unescaped = body.replace(rb"\\", b"").replace(rb"\"", b"")
    outside = unescaped.translate(None, _ALL_BUT_MARKS).replace(b'""', b"").split(b'"', 2 * max_values + 4)[::2]
    if sum(map(len, outside)) > max_values:
        raise TooLarge(
            f"The JSON of a request may have at most {max_values} values.",
            code="too_many_values",
            extra={"limit": "max_values", "value": max_values},
        )
