"""Every domain error has an HTTP status and a stable code; nothing of the machine is in it."""

import re
from collections.abc import Iterator

import pytest

from scripts.local.installation import ROOT
from shared import errors
from web.http.error_codes import CODES
from web.uploads import parsing
from worker.sandbox.parent import SandboxKilled
from worker.vision import errors as vision


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


def named(pattern: str, *folders: str) -> set[str]:
    """Give what a pattern finds in the source."""
    return {code for folder in folders for path in (ROOT / folder).rglob("*.py") for code in re.findall(pattern, path.read_text())}


def test_every_code_that_reaches_a_client_is_explained_with_its_status() -> None:
    kinds: list[type[errors.ShelfsightError]] = [*leaves(errors.ShelfsightError), SandboxKilled]  # an inspection that ends so says so
    for kind in kinds:
        if kind.default_code not in {"conflict", "forbidden"}:  # these two are only ever raised with codes of their kinds
            assert CODES[kind.default_code][0] == kind.status
    raised = named(r"\bcode=\"([a-z_]+)\"", "web", "shared", "worker") | named(r"\"code\": \"([a-z_]+)\"", "web", "shared", "worker")
    kept = named(r"\bdefault_code = \"([a-z_]+)\"", "web", "shared", "worker") - {"conflict", "forbidden"}
    of_pictures = vision.CODES.keys() - {"unsupported_format", "empty"}  # of an inspection these are not_an_image
    nginx = (ROOT / "deploy/nginx/shelfsight.conf").read_text()
    by_nginx = set(re.findall(r"^ +\w+ ([a-z_]+);$", nginx.partition("map $status $problem_code {")[2].partition("}")[0], re.MULTILINE))
    assert min(map(len, (raised, kept, of_pictures, by_nginx))) >= 5
    assert raised | kept | of_pictures | by_nginx <= CODES.keys()
    documented = (ROOT / "docs/api.md").read_text()
    assert [code for code in CODES if f"`{code}`" not in documented] == []


def test_every_code_of_a_field_and_of_an_image_is_documented() -> None:
    listed = (ROOT / "docs/api.md").read_text().partition("Codes in `errors`:")[2]
    of_fields = named(r"FieldError\([^)]*?, \"([a-z_]+)\",", "web", "shared") | set(parsing._KINDS.values())
    assert len(of_fields) > 10
    assert [code for code in of_fields | vision.CODES.keys() if not re.search(rf"\b{code}\b", listed)] == []


def test_codes_are_not_used_twice() -> None:
    codes = [kind.default_code for kind in leaves(errors.ShelfsightError)]
    assert len(codes) == len(set(codes))


def test_a_code_and_members_of_its_own_go_into_the_problem() -> None:
    field = errors.FieldError("/3/file", "not_base64", "This is not base64.")
    said = errors.Invalid("Two fields are wrong.", code="bad_images", errors=[field], retry_after=3, extra={"limit": 1})
    assert (said.code, said.retry_after, said.extra) == ("bad_images", 3, {"limit": 1})
    assert said.errors[0].as_json() == {"pointer": "/3/file", "code": "not_base64", "detail": "This is not base64."}
