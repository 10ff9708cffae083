"""Query parameters are trimmed like the texts of uploads."""

import pytest
from pydantic import BaseModel
from werkzeug.datastructures import MultiDict

from shared.errors import Invalid
from web.http import query
from web.image_fields import Barcode

SPACES = [chr(code) for code in range(0x3001) if chr(code).isspace()]


class Upload(BaseModel):
    """An upload with one text."""

    barcode: Barcode


@pytest.mark.parametrize("space", SPACES, ids=lambda space: f"U+{ord(space):04X}")
def test_a_text_is_found_as_it_is_stored(space: str) -> None:
    sent = f"{space}010400638{space}13339{space}"
    stored = Upload(barcode=sent).barcode
    for asked in (sent, stored):
        assert query.read({"barcode": query.text}, MultiDict({"barcode": asked})) == {"barcode": stored}


@pytest.mark.parametrize(
    ("names", "rest"),
    [(["b", "a"], "Valid names: a, b."), ([], "Requests of this kind have no query parameters; omit it.")],
    ids=["some", "none"],
)
def test_the_error_of_an_unknown_parameter_lists_the_known_ones(names: list[str], rest: str) -> None:
    with pytest.raises(Invalid) as raised:
        query.read(dict.fromkeys(names, query.text), MultiDict({"x": "1"}))
    assert [(error.pointer, error.detail) for error in raised.value.errors] == [("/x", f"This parameter is unknown. {rest}")]


@pytest.mark.parametrize("value", ["", " ", "\n", "\u3000"])
def test_a_parameter_of_spaces_alone_is_empty(value: str) -> None:
    with pytest.raises(Invalid) as raised:
        query.read({"barcode": query.text}, MultiDict({"barcode": value}))
    assert [error.code for error in raised.value.errors] == ["empty"]
