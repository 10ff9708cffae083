"""Detaching the files of an upload from its JSON changes no result, only the cost."""

import base64
import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import ShelfsightError
from tests.unit.web.json_uploads import GOOD, JPEG, JSON, RELAXED, parse
from web.uploads import embedded_files, parsing
from web.uploads.embedded_files import detach_files

LARGE = b"\xff\xd8\xff\xe0" + bytes(range(256)) * 40
TEXT = base64.b64encode(LARGE).decode()


def outcome(body: bytes, *, lenient: bool) -> Any:
    try:
        return parse(body, lenient=lenient)
    except ShelfsightError as error:
        return type(error), error.code, error.detail, error.errors, error.extra


def both_outcomes(body: bytes, *, lenient: bool) -> tuple[Any, Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embedded_files, "_MIN_BYTES", 8)
        with_detached = outcome(body, lenient=lenient)
        patch.setattr(parsing, "detach_files", lambda _body, _max, _on_file: None)
        return with_detached, outcome(body, lenient=lenient)


FILES = st.sampled_from([GOOD["file"], TEXT, f"data:image/jpeg;base64,{TEXT}", f"DATA:,{TEXT}", f" {TEXT}", TEXT[:-1], f"{TEXT[:80]}\n{TEXT[80:]}",
                         f"data:\\,{TEXT}", f'data:",{TEXT}', f"data:\x01,{TEXT}", f"data:é,{TEXT}", f"data:{'x' * 300},{TEXT}", "A" * 40, "", '"file":"' + "A" * 40])  # fmt: skip
IMAGES = st.fixed_dictionaries({**{name: st.just(value) for name, value in GOOD.items()}, "file": FILES}, optional={"extra": st.just({"file": "A" * 40}) | JSON, "note": FILES, '"file': FILES})


@RELAXED
@given(st.lists(IMAGES | JSON, min_size=1, max_size=4), st.booleans(), st.booleans(), st.booleans())
def test_the_result_is_that_of_the_whole_json(items: list[Any], as_object: bool, escaped: bool, lenient: bool) -> None:  # noqa: FBT001 -- generated
    body = json.dumps({"images": items} if as_object else items, ensure_ascii=escaped).encode()
    detached, whole = both_outcomes(body, lenient=lenient)
    assert detached == whole


@RELAXED
@given(st.lists(IMAGES, min_size=1, max_size=3), st.data())
def test_the_result_is_that_of_the_whole_json_for_damaged_json_too(items: list[Any], data: st.DataObject) -> None:
    body = bytearray(json.dumps(items).encode())
    at = data.draw(st.integers(0, len(body) - 1) | st.sampled_from([match.start() + 9 for match in re.finditer(b'"file"', body)]))
    body[at : at + data.draw(st.integers(0, 3))] = data.draw(st.sampled_from([b'"', b"\\", b"\0", b"\xff", b",", b'"file":"']))
    detached, whole = both_outcomes(bytes(body), lenient=False)
    assert detached == whole


@pytest.mark.parametrize("prefix", ["", "data:image/jpeg;base64,"])
def test_the_files_of_a_usual_upload_are_not_parsed_as_json(prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parsing, "file_from_base64", None)
    body = json.dumps({"images": [{**GOOD, "file": prefix + TEXT}] * 3}).encode()
    assert [image.data for image in parse(body).images] == [LARGE] * 3


@pytest.mark.parametrize("body", [b"[]", json.dumps([GOOD]).encode(), b'{"file" 5}', b'"file":"' + b"A" * 9999, b'"file"' * 9999])
def test_nothing_is_detached_from_other_json(body: bytes) -> None:
    assert detach_files(body, 3) is None


def test_the_number_of_detached_files_is_limited() -> None:
    body = json.dumps([{"file": TEXT}] * 4).encode()
    assert detach_files(body, 3) is None
    detached = detach_files(body, 4)
    assert detached is not None
    assert list(detached.files.values()) == [LARGE] * 4
    assert len(detached.json) < 400


def test_a_duplicate_key_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded_files, "_MIN_BYTES", 8)
    first, last = GOOD["file"], base64.b64encode(JPEG + b"y").decode()
    body = json.dumps([{**GOOD, "file": last}]).replace('"file"', f'"file": "{first}", "file"', 1)
    assert [image.data for image in parse(body.encode()).images] == [JPEG + b"y"]
