"""``environment.py`` over a root of its own: what an interrupted first start left, two first starts at once."""

import fcntl
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from scripts.local import environment

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        shutil.disk_usage("/tmp").free < environment.DISK_NEEDED, reason="it would refuse to begin for want of disk"
    ),
]
SCRIPT = Path(environment.__file__)
NO_INDEX = os.environ | {"PIP_NO_INDEX": "1"}
"""Nothing is fetched: making stops at the first package, which is after what these tests are about."""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "scripts/local").mkdir(parents=True)
    shutil.copy(SCRIPT, tmp_path / "scripts/local/environment.py")
    shutil.copytree(environment.ROOT / "requirements", tmp_path / "requirements")
    return tmp_path


def begin(root: Path) -> "subprocess.Popen[str]":
    command = [sys.executable, "-I", str(root / "scripts/local/environment.py"), "run"]
    return subprocess.Popen(command, env=NO_INDEX, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.mark.parametrize("left", ["no pip", "no configuration"])
def test_an_environment_whose_making_was_interrupted_is_made_anew(root: Path, left: str) -> None:
    venv.create(root / ".venv", with_pip=False)
    if left == "no configuration":
        (root / ".venv/pyvenv.cfg").unlink()
    out, err = begin(root).communicate(timeout=120)
    assert "making .venv" in out
    assert "Run it again" in err
    subprocess.run([root / ".venv/bin/python", "-m", "pip", "--version"], check=True, stdout=subprocess.DEVNULL)
    out, _ = begin(root).communicate(timeout=120)
    assert "making .venv" not in out


def test_a_second_start_waits_for_the_first_and_finds_the_environment_made(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = os.open(root, os.O_RDONLY)
    fcntl.flock(first, fcntl.LOCK_EX)
    second = begin(root)
    assert second.stdout is not None
    assert "another start is making the environment, waiting" in second.stdout.readline()
    monkeypatch.setattr(environment, "ROOT", root)
    (root / ".venv").mkdir()
    (root / ".venv/shelfsight-run.stamp").write_text(environment._digest("run"))
    os.close(first)
    out, err = second.communicate(timeout=60)
    assert (second.returncode, out, err) == (0, "", "")


def test_the_versions_of_torch_are_those_of_its_lock(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "ROOT", root)
    (root / "requirements/torch.txt").write_text("torch==9.8.7 \\\n    --hash=sha256:0\ntorchvision==6.5.4 \\\n    # via torch==1\n")
    assert environment._pair() == ["torch==9.8.7", "torchvision==6.5.4"]
