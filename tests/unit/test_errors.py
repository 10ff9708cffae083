"""Every domain error has an HTTP status and a stable code; nothing of the machine is in it."""

import re
from collections.abc import Iterator

import pytest

from scripts.local.house import ROOT
from shared import errors
from web.codes import CODES


def leaves(kind: type[errors.ShelfsightError]) -> Iterator[type[errors.ShelfsightError]]:
    for below in kind.__subclasses__():
        if below.__module__ == errors.__name__:
            yield below
            yield from leaves(below)


@pytest.mark.parametrize("kind", list(leaves(errors.ShelfsightError)))
def test_each_error_is_complete_and_drawn_in_the_tree(kind: type[errors.ShelfsightError]) -> None:
    assert 400 <= kind.status < 600
    assert kind.__name__ in str(errors.__doc__)
    said = kind("A sentence.")
    assert (said.code, said.detail, str(said)) == (kind.default_code, "A sentence.", "A sentence.")


def test_every_code_that_is_raised_is_explained_with_its_status() -> None:
    for kind in leaves(errors.ShelfsightError):
        if kind.default_code not in {"conflict", "forbidden"}:  # these two are only ever raised with codes of their kinds
            assert CODES[kind.default_code][0] == kind.status
    named = re.compile(r"(?<![A-Za-z_])code=\"([a-z_]+)\"")
    raised = {code for folder in ("web", "shared") for path in (ROOT / folder).rglob("*.py") for code in named.findall(path.read_text())}
    assert len(raised) > 10
    assert raised <= CODES.keys()
    documented = (ROOT / "docs/api.md").read_text()
    assert [code for code in CODES if f"`{code}`" not in documented] == []


def test_codes_are_not_used_twice() -> None:
    codes = [kind.default_code for kind in leaves(errors.ShelfsightError)]
    assert len(codes) == len(set(codes))


def test_a_code_and_members_of_its_own_go_into_the_problem() -> None:
    field = errors.FieldError("/3/file", "not_base64", "This is not base64.")
    said = errors.Invalid("Two fields are wrong.", code="bad_images", errors=[field], retry_after=3, extra={"limit": 1})
    assert (said.code, said.retry_after, said.extra) == ("bad_images", 3, {"limit": 1})
    assert said.errors[0].as_json() == {"pointer": "/3/file", "code": "not_base64", "detail": "This is not base64."}
