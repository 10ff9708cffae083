"""Every domain error has an HTTP status and a stable code, and the table of error codes agrees with all that name them."""

import re
from collections.abc import Iterator

import pytest

from scripts.local.installation import ROOT
from shared import errors
from web.http import field_errors
from web.http.error_codes import CODES
from worker.sandbox.parent import SandboxKilled
from worker.vision import errors as vision


def leaves(kind: type[errors.ShelfsightError]) -> Iterator[type[errors.ShelfsightError]]:
    for below in kind.__subclasses__():
        if below.__module__ == errors.__name__:
            yield below
            yield from leaves(below)


@pytest.mark.parametrize("kind", list(leaves(errors.ShelfsightError)))
def test_each_error_is_complete_and_listed_in_the_tree(kind: type[errors.ShelfsightError]) -> None:
    assert 400 <= kind.status < 600
    assert kind.__name__ in str(errors.__doc__)
    error = kind("A sentence.")
    assert (error.code, error.detail, str(error)) == (kind.default_code, "A sentence.", "A sentence.")


def find_in_source(pattern: str, *folders: str) -> set[str]:
    """Return what a pattern finds in the source."""
    return {code for folder in folders for path in (ROOT / folder).rglob("*.py") for code in re.findall(pattern, path.read_text())}


def test_every_code_that_reaches_a_client_is_in_the_table_with_its_status_and_documented() -> None:
    kinds: list[type[errors.ShelfsightError]] = [*leaves(errors.ShelfsightError), SandboxKilled]  # inspections may fail with it
    for kind in kinds:
        if kind.default_code not in {"conflict", "forbidden"}:  # these two are only raised with more specific codes
            assert CODES[kind.default_code].status == kind.status
    raised = find_in_source(r"\bcode=\"([a-z_]+)\"", "web", "shared", "worker") | find_in_source(r"\"code\": \"([a-z_]+)\"", "web", "shared", "worker")
    defaults = find_in_source(r"\bdefault_code = \"([a-z_]+)\"", "web", "shared", "worker") - {"conflict", "forbidden"}
    of_images = vision.CODES.keys() - {"unsupported_format", "empty"}  # an inspection reports these as not_an_image
    nginx = (ROOT / "deploy/nginx/problem_members.conf").read_text()
    by_nginx = dict(re.findall(r"^ +(\w+) ([a-z_]+);$", nginx.partition("map $status $problem_code {")[2].partition("}")[0], re.MULTILINE))
    assert min(map(len, (raised, defaults, of_images, by_nginx))) >= 5
    assert raised | defaults | of_images | set(by_nginx.values()) <= CODES.keys()
    assert [status for status, code in by_nginx.items() if status != "default" and CODES[code].status != int(status)] == []
    rows = re.findall(r"^\| ([0-9, ]+) \| (.*?) \|", (ROOT / "docs/api.md").read_text(), re.MULTILINE)
    documented = {code: statuses.split(", ") for statuses, codes in rows for code in re.findall(r"`([a-z_]+)`", codes)}
    assert [code for code in CODES if str(CODES[code].status) not in documented.get(code, ())] == []


def test_every_code_of_a_field_and_of_an_image_is_documented() -> None:
    listed = (ROOT / "docs/api.md").read_text().partition("Codes in `errors`:")[2]
    of_fields = find_in_source(r"FieldError\([^)]*?, \"([a-z_]+)\",", "web", "shared") | set(field_errors.CODES.values())
    assert len(of_fields) > 10
    assert [code for code in of_fields | vision.CODES.keys() if not re.search(rf"\b{code}\b", listed)] == []


def test_codes_are_not_used_twice() -> None:
    codes = [kind.default_code for kind in leaves(errors.ShelfsightError)]
    assert len(codes) == len(set(codes))


def test_a_code_and_members_of_its_own_go_into_the_problem() -> None:
    field = errors.FieldError("/3/file", "not_base64", "This is not base64.")
    error = errors.Invalid("Two fields are wrong.", code="bad_images", errors=[field], retry_after=3, extra={"limit": 1})
    assert (error.code, error.retry_after, error.extra) == ("bad_images", 3, {"limit": 1})
    assert error.errors[0].as_json() == {"pointer": "/3/file", "code": "not_base64", "detail": "This is not base64."}
