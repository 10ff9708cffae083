"""Install packages that only a baseline needs: each set of packages in its own folder, outside the runtime environment.

A baseline's process has its folder first on ``PYTHONPATH``; other packages come from the environment of the current
Python. LitServe and Ray (``requirements/serving.in``) are locked together with the versions in the runtime environment,
so that LitServe and Ray use the torch and OpenVINO of this environment.
"""

import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from scripts.bench.extent import Extent
from scripts.local.installation import ROOT

_INSTALL_TIMEOUT_S: Final = 900


class NotInstalled(RuntimeError):
    """The packages are not available; the message is one line with the reason."""


def installed_folder(name: str, extent: Extent) -> Path:
    """Return the folder in the user's cache that holds the packages of a lock file; install them on first use.

    :param name: name of the lock file in ``requirements/``, without ``.txt``.
    :raises NotInstalled: when the packages cannot be installed, for example because the package index, disk
        space or uv is missing. A smoke run never uses them, so that it is the same on every machine.
    """
    if extent is Extent.SMOKE:
        raise NotInstalled("a smoke run uses no packages other than those of the service")
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "shelfsight"
    lock = ROOT / "requirements" / f"{name}.txt"
    digest = hashlib.sha256(lock.read_bytes() + sys.version.encode()).hexdigest()
    installed = caches / f"{name}-{digest[:16]}"
    if installed.exists():
        return installed
    try:
        caches.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=caches) as temp:
            packages = Path(temp) / "packages"
            _install(lock, packages)
            packages.rename(installed)  # renaming is atomic, so the folder is complete if it exists
    except subprocess.TimeoutExpired as error:
        raise NotInstalled(f"the installation took more than {_INSTALL_TIMEOUT_S} s") from error
    except OSError as error:
        raise NotInstalled(str(error)) from error
    return installed


def _install(lock: Path, packages: Path) -> None:
    uv = str(Path(sys.executable).with_name("uv"))
    command = [uv, "pip", "install", "--quiet", "--python", sys.executable, "--target", str(packages)]
    command += ["--require-hashes", "-r", str(lock)]
    completed = subprocess.run(command, capture_output=True, text=True, timeout=_INSTALL_TIMEOUT_S, check=False)
    if completed.returncode:
        lines = completed.stderr.strip().splitlines() or [f"uv ended with code {completed.returncode}"]
        raise NotInstalled(" ".join(line.strip() for line in lines))
