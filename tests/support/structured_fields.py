"""A strict parser of lists in structured fields (RFC 9651), as far as rate limit headers use them: strings with integers as parameters."""

import re

_STRING = re.compile(r'"((?:[\x20-\x21\x23-\x5b\x5d-\x7e]|\\["\\])*)"')
_PARAMETER = re.compile(r";[ ]*([a-z*][a-z0-9_.*-]*)=(-?[0-9]{1,15})(?![0-9.])")
_COMMA = re.compile(r"[ \t]*,[ \t]*")


def parse_list(text: str) -> list[tuple[str, dict[str, int]]]:
    """Return the members of a list: each string with its parameters.

    :raises ValueError: when the text is not such a list.
    """
    members = []
    position = 0
    while True:
        string = _STRING.match(text, position)
        if string is None:
            raise ValueError(f"There is no string at {position} in {text!r}.")
        position = string.end()
        parameters: dict[str, int] = {}
        while (parameter := _PARAMETER.match(text, position)) is not None:
            parameters[parameter[1]] = int(parameter[2])
            position = parameter.end()
        members.append((re.sub(r"\\(.)", r"\1", string[1]), parameters))
        if position == len(text):
            return members
        comma = _COMMA.match(text, position)
        if comma is None:
            raise ValueError(f"There is no comma at {position} in {text!r}.")
        position = comma.end()
