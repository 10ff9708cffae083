"""LitServe and Ray: big, needed by one bench only, hence in a folder of their own beside the runtime environment.

They are locked under the runtime's own versions (``requirements/serving.in``), so the folder goes first on ``PYTHONPATH`` and
torch, OpenVINO and whatever else the model needs still come from the environment that this Python belongs to.
"""

import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from scripts.local.house import ROOT

_LOCK: Final = ROOT / "requirements/serving.txt"
_INSTALL_S: Final = 900


class NotInstalled(RuntimeError):
    """They cannot be had; the text is one line that says why."""


def folder() -> Path:
    """Find the packages, in the user's cache; install them on first use (400 MB).

    :raises NotInstalled: no index, no disk, no uv.
    """
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "shelfsight"
    digest = hashlib.sha256(_LOCK.read_bytes() + sys.version.encode()).hexdigest()
    made = caches / f"serving-{digest[:16]}"
    if made.exists():
        return made
    try:
        caches.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=caches) as name:
            packages = Path(name) / "packages"
            _install(packages)
            packages.rename(made)  # all of it or nothing: whoever finds the folder may use it
    except subprocess.TimeoutExpired as error:
        raise NotInstalled(f"the installation took more than {_INSTALL_S} s") from error
    except OSError as error:
        raise NotInstalled(str(error)) from error
    return made


def _install(packages: Path) -> None:
    uv = str(Path(sys.executable).with_name("uv"))
    command = [uv, "pip", "install", "--quiet", "--python", sys.executable, "--target", str(packages)]
    command += ["--require-hashes", "-r", str(_LOCK)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=_INSTALL_S, check=False)
    if ended.returncode:
        said = ended.stderr.strip().splitlines() or [f"uv ended with code {ended.returncode}"]
        raise NotInstalled(" ".join(line.strip() for line in said))
