"""The model errors of a worker of this start, and those of an earlier start."""

import json
from pathlib import Path

import pytest

from scripts.local.model_errors import ModelErrorLog

SENTENCE = 'There is no model "shelves".'
FORMS = {
    "json": json.dumps({"level": "error", "message": f"no model: {SENTENCE}"}),
    "text": f"2026-11-21 ERROR worker-1 shelfsight.error: no model: {SENTENCE}",
}


@pytest.mark.parametrize("form", FORMS)
def test_only_errors_logged_after_the_start_are_read(tmp_path: Path, form: str) -> None:
    log = tmp_path / "worker-1.log"
    log.write_text(FORMS[form].replace("shelves", "of an earlier start") + "\n")
    errors = ModelErrorLog(log)
    assert errors.read_last() is None
    with log.open("a") as file:
        file.write(f"ready\n{FORMS[form]}\nmore\n")
    assert errors.read_last() == SENTENCE


def test_a_missing_log_has_no_error_until_it_is_created(tmp_path: Path) -> None:
    errors = ModelErrorLog(tmp_path / "worker-1.log")
    assert errors.read_last() is None
    errors.log.write_text(FORMS["json"] + "\n")
    assert errors.read_last() == SENTENCE
