"""Each lock is whole for each Python that it is for: nothing is installed, but everything is resolved and has its hash."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT

LOCKS = ("bootstrap", "web", "worker", "local", "dev", "torch")
"""All with hashes: torch-cpu.txt has none, and its index may be out of reach."""


@pytest.mark.slow
@pytest.mark.parametrize("version", ["3.11", "3.12"])
@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_resolves_for_each_python(lock: str, version: str, tmp_path: Path) -> None:
    uv: list[str | Path] = [Path(sys.executable).with_name("uv"), "pip", "install", "--quiet", "--dry-run", "--require-hashes"]
    where: list[str | Path] = ["--python-version", version, "--target", tmp_path / "nowhere", "-r", ROOT / "requirements" / f"{lock}.txt"]
    done = subprocess.run([*uv, *where], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
