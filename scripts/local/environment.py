"""Make ``.venv`` on first use. Runs on a bare Python: only the standard library here.

``python3 scripts/local/environment.py run|dev``: ``run`` holds what the service needs, ``dev`` what its tests need besides.
It may be interrupted at any point and run again; a second one beside it waits.
"""

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
VENV = ROOT / ".venv"
PYTHON = VENV / "bin/python"
LOCKS = {"run": ("local.txt",), "dev": ("local.txt", "dev.txt")}
"""What each level installs: the last lock, which holds those before it."""
GIB = 1024**3
PACKAGES_NEED = 2 * GIB
PAIR_NEEDS = 7 * GIB
INDEX_PATIENCE_S = "5"
CHECK_S = 120


def main() -> None:
    """Bring the environment up to the locks, or say in one line what is in the way."""
    level = sys.argv[1]
    if sys.version_info < (3, 11):  # noqa: UP036 -- this runs on whatever Python is there
        sys.exit(f"Python 3.11 or newer is needed, this is {sys.version.split()[0]}: install one and run it again.")
    try:
        if not _is_made(level):
            with _alone():
                if not _is_made(level):
                    _make(level)
    except KeyboardInterrupt:
        sys.exit("Interrupted: the environment is not complete; run it again to go on.")
    except OSError as error:
        sys.exit(f"The environment cannot be made ({error}): make room or give access under {ROOT}, then run it again.")


def _is_made(level: str) -> bool:
    """Say whether this level is there, or another that holds it: after the tests nothing is missing for the service."""
    stamps = [(_stamp(one), _digest(one)) for one, locks in LOCKS.items() if LOCKS[level][-1] in locks]
    return any(stamp.exists() and stamp.read_text() == digest for stamp, digest in stamps)


def _make(level: str) -> None:
    needed = PACKAGES_NEED + (0 if _has_pair() else PAIR_NEEDS)
    if shutil.disk_usage(ROOT).free < needed:
        sys.exit(f"The environment needs about {needed // GIB} GB of disk under {ROOT}: make room and run it again.")
    if not _has_pip():
        _say("making .venv")
        try:
            venv.create(VENV, with_pip=True, clear=True)
        except (subprocess.CalledProcessError, ImportError):
            sys.exit("This Python cannot make environments: apt-get install python3-venv, then run it again.")
    _say("installing uv")
    _run([str(PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes", "-r", _lock("bootstrap.txt")])
    _say("installing packages (about 350 MB)")
    _uv(["--require-hashes", "-r", _lock(LOCKS[level][-1])])
    _torch()
    _say("compiling packages, so that each process starts sooner")
    _compile()
    _stamp(level).write_text(_digest(level))
    _say("the environment is ready")


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Keep others out meanwhile. The lock is on the folder that ``.venv`` is in: ``.venv`` itself comes and goes."""
    folder = os.open(ROOT, os.O_RDONLY)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say("another start is making the environment, waiting")
            fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _has_pip() -> bool:
    """Say whether the environment can be installed into; one whose making was interrupted has a Python, but no pip that runs.

    Without its configuration ``bin/python`` is the system's Python, whose pip must not be used; ``bin/pip`` is written last.
    """
    if not ((VENV / "pyvenv.cfg").exists() and (VENV / "bin/pip").exists()):
        return False
    try:
        return subprocess.run([str(PYTHON), "-m", "pip", "--version"], capture_output=True, check=False, timeout=CHECK_S).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def _has_pair() -> bool:
    """Say whether the pair's bytes are on the disk already; whether it can be imported is another question."""
    return all(list(VENV.glob(f"lib/python*/site-packages/{name.replace('==', '-')}*.dist-info")) for name in _pair())


def _torch() -> None:
    """Install the pair of torch and torchvision: without an NVIDIA GPU the small one from PyTorch's own index, if it answers."""
    pair = _pair()
    check = "import torch, torchvision; print(torch.__version__.split('+')[0], torchvision.__version__.split('+')[0])"
    try:
        there = subprocess.run([str(PYTHON), "-c", check], capture_output=True, text=True, check=False, timeout=CHECK_S).stdout.split()
    except subprocess.TimeoutExpired:
        there = []
    if there == [name.split("==")[1] for name in pair]:
        return
    if shutil.which("nvidia-smi") is None:
        _say("installing torch and torchvision for this CPU (PyTorch's own index)")
        impatient = os.environ | {"UV_HTTP_TIMEOUT": INDEX_PATIENCE_S, "UV_HTTP_RETRIES": "0"}
        if _uv(["--torch-backend", "cpu", "-r", _lock("torch-cpu.txt")], impatient, quiet=True, must=False):
            return
    _say("installing torch and torchvision from the default index (about 3 GB)")
    _uv(["--require-hashes", "-r", _lock("torch.txt")])


def _compile() -> None:
    """Write the packages' bytecode.

    Programs do so as they are imported, but not where PYTHONDONTWRITEBYTECODE is set, as in many images; there each import of torch
    took 11 s instead of 4. A few files are written for another Python: they do not compile, and are not imported either.
    """
    _run([str(PYTHON), "-m", "compileall", "-q", "-j", "0", str(VENV / "lib")], quiet=True, must=False)


def _pair() -> "list[str]":
    """Read the versions of the pair from its lock, as ``name==version``."""
    return re.findall(r"^(?:torch|torchvision)==[^\s;\\]+", Path(_lock("torch.txt")).read_text(), re.MULTILINE)


def _uv(arguments: list[str], environment: "dict[str, str] | None" = None, *, quiet: bool = False, must: bool = True) -> bool:
    command = [str(VENV / "bin/uv"), "pip", "install", "--python", str(PYTHON), *arguments]
    return _run(command, environment, quiet=quiet, must=must)


def _run(command: "list[str]", environment: "dict[str, str] | None" = None, *, quiet: bool = False, must: bool = True) -> bool:
    sink = subprocess.DEVNULL if quiet else None
    try:
        code = subprocess.run(command, env=environment, stderr=sink, stdout=sink, check=False, timeout=1800).returncode
    except subprocess.TimeoutExpired:
        code = 1
    if code and must:
        sys.exit(f"Installing failed ({' '.join(command[:4])} ...): is the package index reachable? Run it again to go on.")
    return code == 0


def _digest(level: str) -> str:
    """Digest all that an environment follows from: its locks, the way it is made, and the Python that makes it."""
    names = ["bootstrap.txt", *LOCKS[level], "torch.txt", "torch-cpu.txt"]
    made_of = b"".join((ROOT / "requirements" / name).read_bytes() for name in names) + Path(__file__).read_bytes()
    return hashlib.sha256(made_of + sys.version.encode()).hexdigest()


def _stamp(level: str) -> Path:
    return VENV / f"shelfsight-{level}.stamp"


def _lock(name: str) -> str:
    return str(ROOT / "requirements" / name)


def _say(line: str) -> None:
    print(f"[environment] {line}", flush=True)


if __name__ == "__main__":
    main()
