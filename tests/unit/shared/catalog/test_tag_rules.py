"""What a tag can be named, and which names are equal."""

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.catalog.tag_rules import (
    COLOR_PATTERN,
    MAX_KEY_LENGTH,
    MAX_NAME_LENGTH,
    is_name,
    key_of,
    read_color,
    read_name,
)

ACCEPTED = ["a", "a.b", "$where", "$", "...", ".hidden", "x" * 100, "Käse", "牛乳", "حليب", "शेल्फ़", "🥛", "👨\u200d👩\u200d👧", "a b", "100 %", "a\\b", "<b>", "null", "-1", "می\u200cخ"]
REFUSED = [
    "", " ", "\u00a0", ".", "..", " .. ", "\u2025", "a/b", "/", "a\0b", "\0", "a\nb", "a\tb", "a\x7fb", "a\x85b", "x" * 101, "x" * 5000,
    "\ud800", "a\udfff", "\u200b", "\u200d\ufe0f", "\ufeff", "\u00ad", "\u3164", "a\u2028b", "\ufdfa" * 50,
    *(f"a{chr(code)}b" for code in (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))),
]  # fmt: skip


@pytest.mark.parametrize("name", ACCEPTED, ids=ascii)
def test_a_name_is_kept_as_it_is(name: str) -> None:
    assert read_name(name) == name
    assert read_name(f"\u2003 {name}\n") == name


@pytest.mark.parametrize("name", REFUSED, ids=lambda name: ascii(name)[:20])
def test_a_name_is_refused_with_a_sentence(name: str) -> None:
    with pytest.raises(ValueError, match=r"^[A-Z].*\.$"):
        read_name(name)
    assert not is_name(name)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Sale", "sALE"), ("Straße", "STRASSE"), ("ΣΊΣΥΦΟΣ", "σίσυφος"), ("é", "e\u0301"), ("Å", "\u212b"), ("ﬁsh", "fish"), ("\uff21\uff22\uff23", "abc"),
        ("a b", "a\u00a0 b"), ("a\u00adb", "ab"), ("a\u200bb", "AB"), ("❤", "❤\ufe0f"), ("①", "1"),
    ],
)  # fmt: skip
def test_equal_names_have_the_same_key(one: str, other: str) -> None:
    assert key_of(one) == key_of(other)


@pytest.mark.parametrize(("one", "other"), [("a", "á"), ("a b", "ab"), ("a.b", "ab"), ("I", "\u0131"), ("0", "O"), ("牛", "牛乳")])
def test_different_names_have_different_keys(one: str, other: str) -> None:
    assert key_of(one) != key_of(other)


@given(st.text())
def test_the_key_of_a_key_is_the_key(text: str) -> None:
    assert key_of(key_of(text)) == key_of(text)
    assert key_of(f" {text} ") == key_of(text)


@given(st.text(max_size=MAX_NAME_LENGTH + 10))
def test_an_accepted_name_obeys_the_rules(text: str) -> None:
    if not is_name(text):
        return
    name = read_name(text)
    assert 1 <= len(name) <= MAX_NAME_LENGTH
    assert 1 <= len(key_of(name)) <= MAX_KEY_LENGTH
    assert name == name.strip() == read_name(name)
    assert "/" not in name
    assert not any(unicodedata.category(character) in {"Cc", "Cs"} for character in name)
    name.encode()


@given(st.text(alphabet=st.characters(categories=["L", "N"]), min_size=1, max_size=MAX_NAME_LENGTH))
def test_letters_and_digits_make_a_name_in_any_case(text: str) -> None:
    assert is_name(text) or len(key_of(text)) > MAX_KEY_LENGTH or not key_of(text)
    if len(key_of(text)) > 0:
        assert key_of(text.casefold()) == key_of(text)


@given(st.text(max_size=9))
def test_a_color_has_six_digits_and_is_stored_in_lower_case(text: str) -> None:
    if re.fullmatch(COLOR_PATTERN, text):
        assert read_color(text) == text.lower()
    else:
        with pytest.raises(ValueError, match="color"):
            read_color(text)
    assert read_color("#1E90fF") == "#1e90ff"


@pytest.mark.parametrize("color", ["red", "#fff", "#12345g", "#1234567", "1e90ff", "#1e90ff\n", "#\uff11\uff12\uff13\uff14\uff15\uff16", ""])
def test_a_bad_color_is_refused(color: str) -> None:
    with pytest.raises(ValueError, match="color"):
        read_color(color)
