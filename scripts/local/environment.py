"""Create the virtual environment ``.venv`` on first use. This file runs on the system's Python and uses the standard library only.

``python3 scripts/local/environment.py run|dev``: ``run`` installs the dependencies of the service, ``dev`` also those of its tests.
It may be interrupted at any time and run again; a concurrent run waits.
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
"""The lock files of each level. The last one is installed; it contains the packages of the others."""
GIB = 1024**3
PACKAGES_NEED = 2 * GIB
TORCH_NEEDS = 7 * GIB
INDEX_TIMEOUT_S = "5"
CHECK_TIMEOUT_S = 120


def main() -> None:
    """Install what the lock files list, or exit with one line that names the problem and the remedy."""
    level = sys.argv[1]
    if sys.version_info < (3, 11):  # noqa: UP036 -- this runs on the system's Python, whatever its version
        sys.exit(f"Python 3.11 or newer is required, this is {sys.version.split()[0]}. Install a newer Python, then run this command again.")
    try:
        if not _is_complete(level):
            with _lock_root():
                if not _is_complete(level):
                    _create(level)
    except KeyboardInterrupt:
        sys.exit("Interrupted; the environment is incomplete. Run it again to continue.")
    except OSError as error:
        sys.exit(f"The environment cannot be created ({error}). Free disk space or grant write access under {ROOT}, then run this command again.")


def _is_complete(level: str) -> bool:
    """Return whether this level is installed, or another level that contains it: ``dev`` contains ``run``."""
    stamps = [(_stamp(name), _digest(name)) for name, locks in LOCKS.items() if LOCKS[level][-1] in locks]
    return any(stamp.exists() and stamp.read_text() == digest for stamp, digest in stamps)


def _create(level: str) -> None:
    needed = PACKAGES_NEED + (0 if _has_torch() else TORCH_NEEDS)
    if shutil.disk_usage(ROOT).free < needed:
        sys.exit(f"The environment needs about {needed // GIB} GB of disk space under {ROOT}. Free disk space, then run this command again.")
    if not _has_pip():
        _log("creating .venv")
        try:
            venv.create(VENV, with_pip=True, clear=True)
        except (subprocess.CalledProcessError, ImportError):
            sys.exit("This Python cannot create virtual environments. Install venv (apt-get install python3-venv), then run this command again.")
    _log("installing uv")
    _run([str(PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes", "-r", _lock_file("bootstrap.txt")])
    _log("installing packages (about 350 MB)")
    _uv_install(["--require-hashes", "-r", _lock_file(LOCKS[level][-1])])
    _install_torch()
    _log("compiling packages, so that each process starts faster")
    _compile()
    _stamp(level).write_text(_digest(level))
    _log("the environment is ready")


@contextlib.contextmanager
def _lock_root() -> Iterator[None]:
    """Lock out concurrent runs. The lock is on the root folder, because ``.venv`` itself may be deleted and created again."""
    folder = os.open(ROOT, os.O_RDONLY)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _log("waiting for another process that is creating the environment")
            fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _has_pip() -> bool:
    """Return whether packages can be installed into the environment.

    An environment whose creation was interrupted has a Python, but no working pip. Without ``pyvenv.cfg``, ``bin/python`` is the
    system's Python, whose pip must not be used; ``bin/pip`` is written last.
    """
    if not ((VENV / "pyvenv.cfg").exists() and (VENV / "bin/pip").exists()):
        return False
    try:
        return subprocess.run([str(PYTHON), "-m", "pip", "--version"], capture_output=True, check=False, timeout=CHECK_TIMEOUT_S).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def _has_torch() -> bool:
    """Return whether the files of torch and torchvision are installed, which does not prove that they can be imported."""
    return all(list(VENV.glob(f"lib/python*/site-packages/{name.replace('==', '-')}*.dist-info")) for name in _torch_versions())


def _install_torch() -> None:
    """Install torch and torchvision; without an NVIDIA GPU the smaller CPU builds from PyTorch's own index, if it answers."""
    versions = _torch_versions()
    check = "import torch, torchvision; print(torch.__version__.split('+')[0], torchvision.__version__.split('+')[0])"
    try:
        installed = subprocess.run([str(PYTHON), "-c", check], capture_output=True, text=True, check=False, timeout=CHECK_TIMEOUT_S).stdout.split()
    except subprocess.TimeoutExpired:
        installed = []
    if installed == [name.split("==")[1] for name in versions]:
        return
    if shutil.which("nvidia-smi") is None:
        _log("installing the CPU builds of torch and torchvision from PyTorch's own index")
        environment = os.environ | {"UV_HTTP_TIMEOUT": INDEX_TIMEOUT_S, "UV_HTTP_RETRIES": "0"}
        if _uv_install(["--torch-backend", "cpu", "-r", _lock_file("torch-cpu.txt")], environment, quiet=True, required=False):
            return
    _log("installing torch and torchvision from the default index (about 3 GB)")
    _uv_install(["--require-hashes", "-r", _lock_file("torch.txt")])


def _compile() -> None:
    """Compile the packages to bytecode.

    Python does this on import, except where PYTHONDONTWRITEBYTECODE is set, as in many images: there each import of torch took 11 s
    instead of 4. A few files are for another version of Python; they fail to compile, and are never imported.
    """
    _run([str(PYTHON), "-m", "compileall", "-q", "-j", "0", str(VENV / "lib")], quiet=True, required=False)


def _torch_versions() -> "list[str]":
    """Read the versions of torch and torchvision from their lock file, as ``name==version``."""
    return re.findall(r"^(?:torch|torchvision)==[^\s;\\]+", Path(_lock_file("torch.txt")).read_text(), re.MULTILINE)


def _uv_install(arguments: list[str], environment: "dict[str, str] | None" = None, *, quiet: bool = False, required: bool = True) -> bool:
    command = [str(VENV / "bin/uv"), "pip", "install", "--python", str(PYTHON), *arguments]
    return _run(command, environment, quiet=quiet, required=required)


def _run(command: "list[str]", environment: "dict[str, str] | None" = None, *, quiet: bool = False, required: bool = True) -> bool:
    sink = subprocess.DEVNULL if quiet else None
    try:
        code = subprocess.run(command, env=environment, stderr=sink, stdout=sink, check=False, timeout=1800).returncode
    except subprocess.TimeoutExpired:
        code = 1
    if code and required:
        sys.exit(f"Installing failed ({' '.join(command[:4])} ...). Check that the package index is reachable, then run this command again to continue.")
    return code == 0


def _digest(level: str) -> str:
    """Return a digest of everything that determines the environment: its lock files, this file, and the version of Python."""
    names = ["bootstrap.txt", *LOCKS[level], "torch.txt", "torch-cpu.txt"]
    content = b"".join((ROOT / "requirements" / name).read_bytes() for name in names) + Path(__file__).read_bytes()
    return hashlib.sha256(content + sys.version.encode()).hexdigest()


def _stamp(level: str) -> Path:
    return VENV / f"shelfsight-{level}.stamp"


def _lock_file(name: str) -> str:
    return str(ROOT / "requirements" / name)


def _log(message: str) -> None:
    print(f"[environment] {message}", flush=True)


if __name__ == "__main__":
    main()
