"""``environment.py`` over a root of its own: what an interrupted first start left, two first starts at once."""

import fcntl
import os
import re
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from types import SimpleNamespace

import pytest

from scripts.local import environment

needs_room = pytest.mark.skipif(
    shutil.disk_usage(tempfile.gettempdir()).free < environment.PACKAGES_NEED + environment.PAIR_NEEDS,
    reason="it would refuse to begin for want of disk",
)
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


@pytest.mark.slow
@needs_room
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


def test_a_second_start_waits_for_the_first_and_finds_the_environment_made(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_what_the_tests_need_holds_what_the_service_needs(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "ROOT", root)
    monkeypatch.setattr(environment, "VENV", root / ".venv")
    (root / ".venv").mkdir()
    stamp = root / ".venv/shelfsight-dev.stamp"
    stamp.write_text(environment._digest("dev"))
    assert environment._is_made("run")
    assert environment._is_made("dev")
    (root / "requirements/local.txt").write_text("another\n")
    assert not environment._is_made("run")
    assert not environment._is_made("dev")
    stamp.rename(root / ".venv/shelfsight-run.stamp")
    (root / ".venv/shelfsight-run.stamp").write_text(environment._digest("run"))
    assert environment._is_made("run")
    assert not environment._is_made("dev")


def test_packages_are_compiled_and_one_for_another_python_is_left_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "VENV", tmp_path)
    monkeypatch.setattr(environment, "PYTHON", Path(sys.executable))
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    packages = tmp_path / "lib/python3/site-packages"
    packages.mkdir(parents=True)
    (packages / "later.py").write_text("type of tomorrow = 1\n")
    (packages / "plain.py").write_text("a = 1\n")
    environment._compile()
    assert [path.name.split(".")[0] for path in packages.glob("__pycache__/*.pyc")] == ["plain"]


def test_packages_are_compiled_before_the_environment_counts_as_made(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "ROOT", root)
    monkeypatch.setattr(environment, "VENV", root / ".venv")
    (root / ".venv").mkdir()
    made: list[bool] = []
    for step in ("_has_pip", "_has_pair", "_run", "_uv", "_torch"):
        monkeypatch.setattr(environment, step, lambda *_, **__: True)
    monkeypatch.setattr(environment, "_compile", lambda: made.append(environment._is_made("run")))
    environment._make("run")
    assert made == [False]
    assert environment._is_made("run")


def test_an_environment_that_would_be_made_otherwise_now_is_made_anew(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "ROOT", root)
    monkeypatch.setattr(environment, "__file__", str(root / "scripts/local/environment.py"))
    before = environment._digest("run")
    with (root / "scripts/local/environment.py").open("a") as script:
        script.write("# another step\n")
    assert environment._digest("run") != before


def pinned(lock: str) -> set[str]:
    return set(re.findall(r"^[^\s#=]+==[^\s;]+", (environment.ROOT / "requirements" / lock).read_text(), re.MULTILINE))


def test_the_lock_for_the_tests_pins_all_that_the_one_for_the_service_pins() -> None:
    assert len(pinned("local.txt")) > 40
    assert pinned("local.txt") <= pinned("dev.txt")


@pytest.mark.parametrize(("free", "begins"), [(8, False), (9, True)])
def test_without_torch_it_needs_much_room(free: int, begins: bool, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: FBT001 -- a case
    assert starts_to_make(root, monkeypatch, free) is begins


@pytest.mark.parametrize(("free", "begins"), [(1, False), (2, True)])
def test_with_torch_there_it_needs_little_room(free: int, begins: bool, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: FBT001 -- a case
    (root / "requirements/torch.txt").write_text("torch==9.8.7 \\\n    --hash=sha256:0\ntorchvision==6.5.4 \\\n")
    for name in ("torch-9.8.7+cpu", "torchvision-6.5.4"):
        (root / f".venv/lib/python3.11/site-packages/{name}.dist-info").mkdir(parents=True)
    assert starts_to_make(root, monkeypatch, free) is begins


def starts_to_make(root: Path, monkeypatch: pytest.MonkeyPatch, free: int) -> bool:
    """Let it make the environment on a disk with so many GiB free, up to where it would ask for pip."""
    monkeypatch.setattr(environment, "ROOT", root)
    monkeypatch.setattr(environment, "VENV", root / ".venv")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free * environment.GIB))
    monkeypatch.setattr(environment, "_has_pip", lambda: sys.exit("begun"))
    with pytest.raises(SystemExit, match=r"begun|make room and run it again") as ended:
        environment._make("run")
    return str(ended.value) == "begun"
