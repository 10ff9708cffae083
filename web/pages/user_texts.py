"""Template filters for texts from outside: names, file names, barcodes, URLs, and messages that quote them.

Such a text can be in a script that is written from right to left, and it can contain characters that change the
direction of what follows. The element ``bdi`` isolates a text from its surroundings, but only until the text contains
the end of an isolate or of a paragraph. Therefore, these characters are removed, so that a page shows the other
characters in their real order.
"""

import re
from typing import Final

from flask import Blueprint
from markupsafe import Markup

_CONTROLS: Final = re.compile(r"[\u202a-\u202e\u2066-\u2069]+")
"""Embeddings, overrides and isolates, and their ends. Direction marks (such as U+200F) affect no other text."""
_SEPARATORS: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


def install(blueprint: Blueprint) -> None:
    """Make the filters ``user_text`` (in an element) and ``user_attribute`` (in an attribute or a title) available."""
    blueprint.add_app_template_filter(user_text)
    blueprint.add_app_template_filter(user_attribute)


def user_text(text: object) -> Markup:
    """Return a text as an element that is isolated from the text around it."""
    return Markup("<bdi>{}</bdi>").format(user_attribute(text))


def user_attribute(text: object) -> str:
    """Return a text without the characters that affect the text around it."""
    return _SEPARATORS.sub(" ", _CONTROLS.sub("", str(text)))
