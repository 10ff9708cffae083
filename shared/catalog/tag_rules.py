"""What a tag can be named, and the form in which names are compared. All functions are pure."""

import re
import unicodedata
from typing import Final

MAX_NAME_LENGTH: Final = 100
MAX_KEY_LENGTH: Final = 400
"""Maximum length, in characters, of the form in which names are compared. A few characters become up to 18."""
MAX_DESCRIPTION_LENGTH: Final = 1000
COLOR_PATTERN: Final = "#[0-9A-Fa-f]{6}"
MAX_TAGS: Final = 10_000
"""Maximum number of tags in an installation."""
MAX_TAGS_PER_IMAGE: Final = 100
_COLOR: Final = re.compile(COLOR_PATTERN)
_NAMES_OF_FOLDERS: Final = frozenset({".", ".."})
_CONTROLS: Final = frozenset({"Cc", "Cs", "Zl", "Zp"})
_BIDI_CONTROLS: Final = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""Characters that change the direction of the text around them, so that one name looks like another."""
_IGNORABLE: Final = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0000-\U000e0fff]")
"""Invisible characters of other categories than Cf (Default_Ignorable_Code_Point in the Unicode Character Database)."""
_MAX_ROUNDS: Final = 8


def key_of(name: str) -> str:
    """Return the form in which the names of tags are compared, similar to NFKC_Casefold of the Unicode Standard (3.13).

    Upper and lower case are equal, and so are different encodings of a character. Invisible characters do not count. White
    space at the ends is removed, and every other run of it is one space.
    """
    key = name
    for _ in range(_MAX_ROUNDS):  # a step can make a character for which an earlier step has an equivalent
        folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", key).casefold())
        visible = "".join(character for character in folded if unicodedata.category(character) != "Cf")
        folded = " ".join(_IGNORABLE.sub("", visible).split())
        if folded == key:
            break
        key = folded
    return key


def read_name(text: str) -> str:
    """Return the name of a tag in the form in which it is stored, without white space at its ends.

    :raises ValueError: with a sentence for the client, when no tag can have this name.
    """
    name = text.strip()
    if not name:
        raise ValueError("The name is empty; send a name.")
    if len(name) > MAX_NAME_LENGTH:
        raise ValueError(f"The name is too long; use at most {MAX_NAME_LENGTH} characters.")
    check_characters(name, "name")
    if "/" in name:
        raise ValueError("The name contains a slash; remove it.")
    key = key_of(name)
    if not key:
        raise ValueError("The name has no visible character; add one.")
    if key in _NAMES_OF_FOLDERS:
        raise ValueError("A name cannot be `.` or `..`; choose another one.")
    if len(key) > MAX_KEY_LENGTH:
        raise ValueError("The name is too long, because some of its characters stand for many; use a shorter one.")
    return name


def check_characters(text: str, noun: str) -> None:
    """Refuse a text with a control character, or with one that changes the direction of text.

    :param noun: what the text is, for the sentence to the client.
    :raises ValueError: with a sentence for the client.
    """
    if any(unicodedata.category(character) in _CONTROLS for character in text):
        raise ValueError(f"The {noun} contains a control character; remove it.")
    if _BIDI_CONTROLS.search(text):
        raise ValueError(f"The {noun} contains a character that changes the direction of text; remove it.")


def is_name(text: str) -> bool:
    """Return whether a tag can have this name."""
    try:
        read_name(text)
    except ValueError:
        return False
    return True


def read_color(text: str) -> str:
    """Return a color in lower case.

    :raises ValueError: with a sentence for the client, when it does not have the form ``#rrggbb``.
    """
    if not _COLOR.fullmatch(text):
        raise ValueError("The color is invalid; send six hexadecimal digits after a number sign, like #1e90ff.")
    return text.lower()
