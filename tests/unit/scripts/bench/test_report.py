"""A report tells the truth: ratios, targets, and what was missed."""

import json
from pathlib import Path

import pytest

from scripts.bench.report import Report, Row, Target, against


@pytest.mark.parametrize(
    ("target", "figure", "met"),
    [
        (Target(at_least=0.4), 0.4, True),
        (Target(at_least=0.4), 0.39, False),
        (Target(at_most=2), 2.0, True),
        (Target(at_most=2), 2.01, False),
        (Target(at_least=1, at_most=2), 1.5, True),
    ],
)
def test_a_target_bounds_a_figure(target: Target, figure: float, met: bool) -> None:  # noqa: FBT001 -- parametrised
    assert target.met(figure) is met


def test_the_ratio_is_what_the_target_bounds_when_there_is_a_baseline() -> None:
    row = against("pages", 30.0, "ms", 10.0, at_most=2)
    assert row.ratio == 3.0
    assert row.met is False


def test_the_value_is_what_the_target_bounds_without_a_baseline() -> None:
    assert Row("claimed", 0.1, "s", target=Target(at_most=0.2)).met is True


def test_a_row_without_a_target_is_neither_met_nor_missed() -> None:
    assert against("floor", 1.0, "ms", 2.0).met is None


def test_misses_are_printed_and_make_the_exit_code_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = Report("bench")
    report.part(
        "Part", lambda: [against("good", 1.0, "ms", 1.0, at_most=2), against("bad one", 9.0, "ms", 1.0, at_most=2)]
    )
    assert report.end(tmp_path / "rows.json") == 1
    printed = capsys.readouterr().out
    assert "MISSED bad one" in printed
    assert "1 of 2 targets met" in printed
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [row["met"] for row in rows] == [True, False]
    assert {"name", "value", "unit", "baseline", "ratio"} <= set(rows[0])


def test_all_met_is_exit_code_0() -> None:
    report = Report("bench")
    report.part("Part", lambda: [against("good", 1.0, "ms", 1.0, at_most=2)])
    assert report.end(None) == 0
