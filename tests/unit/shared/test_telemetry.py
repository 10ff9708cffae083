"""Log lines: what came from outside cannot add a line, and cannot change how a terminal shows one."""

import json
import logging
from collections.abc import Iterator

import pytest

from shared import telemetry
from shared.settings import Logging

HOSTILE = "a\nb\rc\x1b[2Jd\x7fe\x85f\x9bg\u2028h\u2029i\u202ej\u2066k\u200fl\x00m\ud800n\t大\v\f\x1c"
"""Line ends and terminal commands of every kind: C0, DEL, C1, line and paragraph separators, bidi controls, a surrogate."""


@pytest.fixture(autouse=True)
def _restore_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield
    root.handlers = handlers
    root.setLevel(level)


def test_a_text_line_shows_control_characters_as_escapes(capsys: pytest.CaptureFixture[str]) -> None:
    telemetry.configure(Logging(format="text"), "web")
    telemetry.access.info("GET %s 404", "/\n2026-01-01 00:00:00,000 INFO web shelfsight.access: GET /admin 200")
    telemetry.errors.error("name %s", HOSTILE)
    lines = capsys.readouterr().err.split("\n")
    assert lines[2:] == [""]
    assert r"GET /\n2026-01-01 00:00:00,000 INFO web" in lines[0]
    shown = lines[1].partition("name ")[2]
    assert shown == r"a\nb\rc\x1b[2Jd\x7fe\x85f\x9bg\u2028h\u2029i\u202ej\u2066k\u200fl\x00m\ud800n\t大\x0b\x0c\x1c"


def test_the_text_of_an_exception_cannot_begin_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    telemetry.configure(Logging(format="text"), "web")
    try:
        raise ValueError("bad name\n2026-01-01 00:00:00,000 INFO web forged\x1b[2J\u202e\r")
    except ValueError:
        telemetry.errors.exception("it failed", stack_info=True)
    lines = capsys.readouterr().err.removesuffix("\n").split("\n")
    assert lines[0].endswith("shelfsight.error: it failed")
    assert len(lines) > 4
    assert all(line.startswith("    ") for line in lines[1:])
    assert r"    2026-01-01 00:00:00,000 INFO web forged\x1b[2J\u202e\r" in lines


def test_letters_of_every_script_are_shown_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    telemetry.configure(Logging(format="text"), "web")
    telemetry.errors.error("%s", "Läden 大华 מצלמה 😀 \\n")
    assert capsys.readouterr().err.endswith("Läden 大华 מצלמה 😀 \\n\n")


def test_a_json_line_keeps_the_characters_themselves(capsys: pytest.CaptureFixture[str]) -> None:
    telemetry.configure(Logging(format="json"), "web")
    telemetry.access.info("%s", "a\nb\u202e", extra={"data": {"client": "c\r"}})
    (line,) = capsys.readouterr().err.splitlines()
    assert (json.loads(line)["message"], json.loads(line)["client"]) == ("a\nb\u202e", "c\r")


def test_a_text_line_shows_the_data_that_has_a_value(capsys: pytest.CaptureFixture[str]) -> None:
    telemetry.configure(Logging(format="text"), "web")
    telemetry.security.info("user.changed", extra={"data": {"username": "Ada Läden", "key_id": None, "details": {"old": ["a", "b"]}}})
    line = capsys.readouterr().err
    assert line.endswith('INFO web shelfsight.security: user.changed {"username": "Ada Läden", "details": {"old": ["a", "b"]}}\n')


def test_the_data_of_a_text_line_cannot_begin_a_line_or_end_early(capsys: pytest.CaptureFixture[str]) -> None:
    telemetry.configure(Logging(format="text"), "web")
    name = f'x"}}\n2026-01-01 00:00:00,000 INFO web shelfsight.security: user.signed_in {{"username": "admin {HOSTILE}'
    telemetry.security.info("sign_in.failed", extra={"data": {"username": name, "request_id": "r"}})
    (line,) = capsys.readouterr().err.splitlines()
    assert not telemetry._UNSAFE.search(line)
    assert r'sign_in.failed {"username": "x\"}\n2026-01-01 00:00:00,000 INFO' in line
    assert line.endswith('", "request_id": "r"}')


def test_a_text_line_without_data_is_only_the_message(capsys: pytest.CaptureFixture[str]) -> None:
    telemetry.configure(Logging(format="text"), "web")
    telemetry.errors.error("it failed", extra={"data": {"batch_id": None}})
    assert capsys.readouterr().err.endswith("shelfsight.error: it failed\n")
