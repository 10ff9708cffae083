"""What a worker of this start says of its model, and what one of an earlier start said."""

import json
from pathlib import Path

import pytest

from scripts.local.model_errors import ModelTrouble

SENTENCE = 'There is no model "shelves".'
FORMS = {
    "json": json.dumps({"level": "error", "message": f"no model: {SENTENCE}"}),
    "text": f"2026-11-21 ERROR worker-1 shelfsight.error: no model: {SENTENCE}",
}


@pytest.mark.parametrize("form", FORMS)
def test_only_what_is_written_after_the_start_counts(tmp_path: Path, form: str) -> None:
    log = tmp_path / "worker-1.log"
    log.write_text(FORMS[form].replace("shelves", "of an earlier start") + "\n")
    model = ModelTrouble(log)
    assert model.said() is None
    with log.open("a") as more:
        more.write(f"ready\n{FORMS[form]}\nmore\n")
    assert model.said() == SENTENCE


def test_a_log_that_is_not_there_says_nothing_until_it_is(tmp_path: Path) -> None:
    model = ModelTrouble(tmp_path / "worker-1.log")
    assert model.said() is None
    model.log.write_text(FORMS["json"] + "\n")
    assert model.said() == SENTENCE
