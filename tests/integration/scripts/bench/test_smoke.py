"""Every benchmark runs to its end. A smoke run judges no speed, so these tests do not depend on the machine."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from scripts.local.installation import ROOT

_BENCHMARKS = sorted(path for path in (ROOT / "scripts/bench").iterdir() if path.is_file() and os.access(path, os.X_OK))
_LIMIT_S = 600


def test_the_benchmarks_are_found() -> None:
    assert {"auth", "browse", "download", "ingest", "inspect", "search", "vision"} <= {path.name for path in _BENCHMARKS}


@pytest.mark.slow
@pytest.mark.parametrize("benchmark", _BENCHMARKS, ids=lambda path: path.name)
def test_a_benchmark_runs_to_its_end(benchmark: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows.json"
    ended = subprocess.run(
        [benchmark, "--smoke", "--json", rows], capture_output=True, text=True, timeout=_LIMIT_S, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert json.loads(rows.read_text())
