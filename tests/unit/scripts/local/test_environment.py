"""``environment.py`` with a root folder of its own: after an interrupted first run, and with two concurrent first runs."""

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

needs_disk_space = pytest.mark.skipif(
    shutil.disk_usage(tempfile.gettempdir()).free < environment.PACKAGES_NEED + environment.TORCH_NEEDS,
    reason="environment.py refuses to run without enough free disk space",
)
SCRIPT = Path(environment.__file__)
NO_INDEX = os.environ | {"PIP_NO_INDEX": "1"}
"""Without an index nothing is downloaded: the run fails at the first package, which is after the steps that these tests check."""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "scripts/local").mkdir(parents=True)
    shutil.copy(SCRIPT, tmp_path / "scripts/local/environment.py")
    shutil.copytree(environment.ROOT / "requirements", tmp_path / "requirements")
    return tmp_path


def run_script(root: Path) -> "subprocess.Popen[str]":
    command = [sys.executable, "-I", str(root / "scripts/local/environment.py"), "run"]
    return subprocess.Popen(command, env=NO_INDEX, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.mark.slow
@needs_disk_space
@pytest.mark.parametrize("left", ["no pip", "no configuration"])
def test_an_environment_whose_creation_was_interrupted_is_created_again(root: Path, left: str) -> None:
    venv.create(root / ".venv", with_pip=False)
    if left == "no configuration":
        (root / ".venv/pyvenv.cfg").unlink()
    out, err = run_script(root).communicate(timeout=120)
    assert "creating .venv" in out
    assert "then run this command again to continue" in err
    subprocess.run([root / ".venv/bin/python", "-m", "pip", "--version"], check=True, stdout=subprocess.DEVNULL)
    out, _ = run_script(root).communicate(timeout=120)
    assert "creating .venv" not in out


def test_a_second_run_waits_for_the_first_and_finds_the_environment_complete(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = os.open(root, os.O_RDONLY)
    fcntl.flock(first, fcntl.LOCK_EX)
    second = run_script(root)
    assert second.stdout is not None
    assert "waiting for another process that is creating the environment" in second.stdout.readline()
    monkeypatch.setattr(environment, "ROOT", root)
    (root / ".venv").mkdir()
    (root / ".venv/shelfsight-run.stamp").write_text(environment._digest("run"))
    os.close(first)
    out, err = second.communicate(timeout=60)
    assert (second.returncode, out, err) == (0, "", "")


def test_the_versions_of_torch_are_those_of_its_lock_file(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "ROOT", root)
    (root / "requirements/torch.txt").write_text("torch==9.8.7 \\\n    --hash=sha256:0\ntorchvision==6.5.4 \\\n    # via torch==1\n")
    assert environment._torch_versions() == ["torch==9.8.7", "torchvision==6.5.4"]


def test_the_level_dev_contains_the_level_run(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "ROOT", root)
    monkeypatch.setattr(environment, "VENV", root / ".venv")
    (root / ".venv").mkdir()
    stamp = root / ".venv/shelfsight-dev.stamp"
    stamp.write_text(environment._digest("dev"))
    assert environment._is_complete("run")
    assert environment._is_complete("dev")
    (root / "requirements/local.txt").write_text("another\n")
    assert not environment._is_complete("run")
    assert not environment._is_complete("dev")
    stamp.rename(root / ".venv/shelfsight-run.stamp")
    (root / ".venv/shelfsight-run.stamp").write_text(environment._digest("run"))
    assert environment._is_complete("run")
    assert not environment._is_complete("dev")


def test_packages_are_compiled_and_a_file_for_another_python_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "VENV", tmp_path)
    monkeypatch.setattr(environment, "PYTHON", Path(sys.executable))
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    packages = tmp_path / "lib/python3/site-packages"
    packages.mkdir(parents=True)
    (packages / "later.py").write_text("type of tomorrow = 1\n")
    (packages / "plain.py").write_text("a = 1\n")
    environment._compile()
    assert [path.name.split(".")[0] for path in packages.glob("__pycache__/*.pyc")] == ["plain"]


def test_packages_are_compiled_before_the_environment_counts_as_complete(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "ROOT", root)
    monkeypatch.setattr(environment, "VENV", root / ".venv")
    (root / ".venv").mkdir()
    complete: list[bool] = []
    for step in ("_has_pip", "_has_torch", "_run", "_uv_install", "_install_torch"):
        monkeypatch.setattr(environment, step, lambda *_, **__: True)
    monkeypatch.setattr(environment, "_compile", lambda: complete.append(environment._is_complete("run")))
    environment._create("run")
    assert complete == [False]
    assert environment._is_complete("run")


def test_an_environment_is_created_again_when_the_script_has_changed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "ROOT", root)
    monkeypatch.setattr(environment, "__file__", str(root / "scripts/local/environment.py"))
    before = environment._digest("run")
    with (root / "scripts/local/environment.py").open("a") as script:
        script.write("# another step\n")
    assert environment._digest("run") != before


def read_pins(lock: str) -> set[str]:
    return set(re.findall(r"^[^\s#=]+==[^\s;]+", (environment.ROOT / "requirements" / lock).read_text(), re.MULTILINE))


def test_the_lock_file_of_the_tests_contains_all_pins_of_that_of_the_service() -> None:
    assert len(read_pins("local.txt")) > 40
    assert read_pins("local.txt") <= read_pins("dev.txt")


@pytest.mark.parametrize(("free", "starts"), [(8, False), (9, True)])
def test_without_torch_it_needs_much_disk_space(free: int, starts: bool, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: FBT001 -- a case
    assert starts_to_create(root, monkeypatch, free) is starts


@pytest.mark.parametrize(("free", "starts"), [(1, False), (2, True)])
def test_with_torch_installed_it_needs_little_disk_space(free: int, starts: bool, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: FBT001 -- a case
    (root / "requirements/torch.txt").write_text("torch==9.8.7 \\\n    --hash=sha256:0\ntorchvision==6.5.4 \\\n")
    for name in ("torch-9.8.7+cpu", "torchvision-6.5.4"):
        (root / f".venv/lib/python3.11/site-packages/{name}.dist-info").mkdir(parents=True)
    assert starts_to_create(root, monkeypatch, free) is starts


def starts_to_create(root: Path, monkeypatch: pytest.MonkeyPatch, free: int) -> bool:
    """Run the creation with ``free`` GiB of free disk space, up to the check for pip.

    :returns: whether it got there.
    """
    monkeypatch.setattr(environment, "ROOT", root)
    monkeypatch.setattr(environment, "VENV", root / ".venv")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free * environment.GIB))
    monkeypatch.setattr(environment, "_has_pip", lambda: sys.exit("started"))
    with pytest.raises(SystemExit, match=r"started|Free disk space, then run this command again") as ended:
        environment._create("run")
    return str(ended.value) == "started"
