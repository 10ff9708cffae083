"""Parse the parameters of a Content-Disposition header, as clients send it in the parts of a form.

The header is defined in RFC 6266, and its extended parameters (``filename*``) in RFC 8187. RFC 7578 forbids the extended
ones in a form, but clients send them. A library parser is not used, because an image must be accepted whatever its file
name contains: characters that are not ASCII and not quoted, a backslash at the end, or a charset that is unknown.
"""

import re
from collections.abc import Iterator
from typing import Final
from urllib.parse import unquote_to_bytes

_NAME: Final = re.compile(r""";\s*([^\s=;"]+)\s*=\s*""")
_QUOTED: Final = re.compile(r"""((?:[^"\\]|\\.)*)"\s*(?=;|\Z)""", re.DOTALL)
_CLOSING_QUOTE: Final = re.compile(r""""\s*(?:;|\Z)""")
_TOKEN: Final = re.compile(r"[^;]*")
_END: Final = re.compile(r"\s*;?\s*\Z")
_ESCAPED: Final = re.compile(r'\\(["\\])')
_EXTENDED: Final = re.compile(r"([A-Za-z0-9._-]+)'[^']*'(.*)", re.DOTALL)
_CHARSETS: Final = frozenset({
    "utf-8", "us-ascii", "iso-8859-1", "iso-8859-2", "iso-8859-3", "iso-8859-4", "iso-8859-5", "iso-8859-6", "iso-8859-7",
    "iso-8859-8", "iso-8859-9", "iso-8859-10", "iso-8859-13", "iso-8859-14", "iso-8859-15", "iso-8859-16", "windows-1250",
    "windows-1251", "windows-1252", "windows-1253", "windows-1254", "windows-1255", "windows-1256", "windows-1257",
    "windows-1258", "windows-31j", "shift_jis", "euc-jp", "iso-2022-jp", "euc-kr", "gb2312", "gbk", "gb18030", "big5", "koi8-r",
    "koi8-u", "tis-620", "macintosh",
})  # fmt: skip
"""The charsets that are decoded. Python has more, but it remembers each unknown name for ever, and some are no charsets."""


def parse_parameters(header: str) -> dict[str, str]:
    """Return the parameters of a Content-Disposition header by their names in lower case, without ``*``.

    An extended parameter takes precedence over the one without ``*``, in any order. It is ignored if it cannot be decoded.
    A value that is split into ``name*0``, ``name*1`` and so on (RFC 2231) is joined.
    """
    if "*" not in header:
        return dict(_split(header))
    plain: dict[str, str] = {}
    extended: dict[str, str] = {}
    for name, value in _join_sections(dict(_split(header))).items():
        if not name.endswith("*"):
            plain[name] = value
        elif (decoded := _decode_extended(value)) is not None:
            extended[name[:-1]] = decoded
    return plain | extended


def _split(header: str) -> list[tuple[str, str]]:
    start = max(0, header.find(";"))
    parameters = _split_strictly(header, start)
    return list(_split_leniently(header, start)) if parameters is None else parameters


def _split_strictly(header: str, position: int) -> list[tuple[str, str]] | None:
    """Return the names and values, or None if the header does not have the syntax of RFC 6266."""
    parameters = []
    while name := _NAME.match(header, position):
        if quoted := header.startswith('"', name.end()):
            value = _QUOTED.match(header, name.end() + 1)
        else:
            value = _TOKEN.match(header, name.end())
        if value is None:
            return None
        parameters.append((name[1].lower(), _unescape(value[1]) if quoted else value[0].strip()))
        position = value.end()
    return parameters if _END.match(header, position) else None


def _split_leniently(header: str, position: int) -> Iterator[tuple[str, str]]:
    """Yield the names and values of a header that is not valid.

    Here, a quoted value ends at the first quote that is followed by a semicolon or by the end, even after a backslash.
    For example, the last byte of a character in Shift_JIS can be a backslash.
    """
    is_closed = True
    while name := _NAME.search(header, position):
        position = name.end()
        if header.startswith('"', position):
            # After a quote that is never closed, the rest is not searched again, so that the time stays linear.
            closing = _CLOSING_QUOTE.search(header, position + 1) if is_closed else None
            is_closed = closing is not None
            if closing is not None:
                yield name[1].lower(), _unescape(header[position + 1 : closing.start()])
                position = closing.start()
            position += 1
        elif value := _TOKEN.match(header, position):
            yield name[1].lower(), value[0].strip()


def _unescape(quoted: str) -> str:
    # A backslash escapes a quote or another backslash. Elsewhere it is a character of a Windows path. Browsers send a
    # quote as %22.
    return _ESCAPED.sub(r"\1", quoted).replace("%22", '"')


def _join_sections(parameters: dict[str, str]) -> dict[str, str]:
    joined = {name: value for name, value in parameters.items() if not _is_section(name)}
    for first in [name for name in parameters if name.rstrip("*").endswith("*0")]:
        name = first.rstrip("*")[: -len("*0")]
        is_extended = first.endswith("*")
        sections: list[str] = []
        while True:
            section = f"{name}*{len(sections)}"
            if section + "*" in parameters:
                sections.append(parameters[section + "*"])
            elif section in parameters:
                text = parameters[section]
                sections.append(text.replace("%", "%25") if is_extended else text)
            else:
                break
        joined.setdefault(name + "*" if is_extended else name, "".join(sections))
    return joined


def _is_section(name: str) -> bool:
    return name.rstrip("*").rpartition("*")[2].isdigit() and "*" in name.rstrip("*")


def _decode_extended(value: str) -> str | None:
    match = _EXTENDED.fullmatch(value)
    if match is None or match[1].lower() not in _CHARSETS:
        return None
    return unquote_to_bytes(match[2]).decode(match[1], "replace")
