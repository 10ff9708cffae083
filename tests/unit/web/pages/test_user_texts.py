"""Texts from outside are isolated in every template."""

import re
from pathlib import Path

import pytest
from markupsafe import Markup

from web.pages import user_texts

TEMPLATES = Path(user_texts.__file__).with_name("templates")
FROM_OUTSIDE = re.compile(
    r"store_name|camera_id|filename\b(?!=)|code\.text|found\.label|\.detail|pointer|\bsource\b|\burl\b|request_id"
)
IN_MACHINE_TEXT = (
    'href="{{ source }}"', "value=\"{{ url or '' }}\"", 'href="{{ image.url }}"', 'href="{{ augmentation.url or augmentation.file_path }}"',
)  # fmt: skip
"""Attributes that are read by programs and need the whole text. The input field is isolated by itself."""


@pytest.mark.parametrize("template", sorted(TEMPLATES.rglob("*.html")), ids=lambda path: path.stem)
def test_every_text_from_outside_passes_through_a_filter(template: Path) -> None:
    text = template.read_text()
    for attribute in IN_MACHINE_TEXT:
        text = text.replace(attribute, "")
    shown = [found for found in re.findall(r"\{\{(.*?)\}\}", text) if FROM_OUTSIDE.search(found)]
    assert [found for found in shown if "|user_text" not in found and "|user_attribute" not in found] == []


def test_a_text_is_isolated_escaped_and_free_of_characters_that_affect_others() -> None:
    assert user_texts.user_text("<b>\u202eevil\u2069\u202d &") == Markup("<bdi>&lt;b&gt;evil &amp;</bdi>")
    assert user_texts.user_attribute("a\nb\u2028c\x1b\u2067d\u200fe\x85") == "a b c d\u200fe "
    assert user_texts.user_text(7) == Markup("<bdi>7</bdi>")
    assert user_texts.user_text("חנות 大华 😀") == Markup("<bdi>חנות 大华 😀</bdi>")
