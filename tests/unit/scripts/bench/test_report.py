"""The report of a benchmark: ratios, targets and missed targets."""

import json
from pathlib import Path

import pytest

from scripts.bench.extent import Extent
from scripts.bench.report import Report, Row, Target, compare


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
    assert target.is_met(figure) is met


def test_with_a_baseline_the_target_applies_to_the_ratio() -> None:
    row = compare("pages", 30.0, "ms", 10.0, at_most=2)
    assert row.ratio == 3.0
    assert row.met is False


def test_without_a_baseline_the_target_applies_to_the_value() -> None:
    assert Row("claimed", 0.1, "s", target=Target(at_most=0.2)).met is True


def test_a_row_without_a_target_is_neither_met_nor_missed() -> None:
    assert compare("bare", 1.0, "ms", 2.0).met is None


def test_missed_targets_are_printed_and_the_exit_code_is_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = Report("bench")
    report.add_part(
        "Part", lambda: [compare("good", 1.0, "ms", 1.0, at_most=2), compare("bad one", 9.0, "ms", 1.0, at_most=2)]
    )
    assert report.finish(tmp_path / "rows.json") == 1
    printed = capsys.readouterr().out
    assert "MISSED bad one" in printed
    assert "1 of 2 targets met" in printed
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [row["met"] for row in rows] == [True, False]
    assert {"name", "value", "unit", "baseline", "ratio"} <= set(rows[0])


def test_the_exit_code_is_0_when_all_targets_are_met() -> None:
    report = Report("bench")
    report.add_part("Part", lambda: [compare("good", 1.0, "ms", 1.0, at_most=2)])
    assert report.finish(None) == 0


def test_a_smoke_run_judges_no_target(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = Report("bench", Extent.SMOKE)
    report.add_part("Part", lambda: [compare("too slow", 9.0, "ms", 1.0, at_most=2)])
    assert report.finish(tmp_path / "rows.json") == 0
    assert "MISSED" not in capsys.readouterr().out
    assert [row["met"] for row in json.loads((tmp_path / "rows.json").read_text())] == [None]
