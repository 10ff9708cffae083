"""Each lock file is complete for each supported Python: it resolves, and every package has a hash. Nothing is installed."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT

LOCKS = ("bootstrap", "web", "worker", "local", "dev", "torch")
"""The lock files with hashes. torch-cpu.txt has none, and its index may be unreachable."""


@pytest.mark.slow
@pytest.mark.parametrize("version", ["3.11", "3.12"])
@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_file_resolves_for_each_python(lock: str, version: str, tmp_path: Path) -> None:
    uv: list[str | Path] = [Path(sys.executable).with_name("uv"), "pip", "install", "--quiet", "--dry-run", "--require-hashes"]
    options: list[str | Path] = ["--python-version", version, "--target", tmp_path / "nowhere", "-r", ROOT / "requirements" / f"{lock}.txt"]
    result = subprocess.run([*uv, *options], capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
