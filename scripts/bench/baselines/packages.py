"""What a bench compares with and nothing else needs: each set of packages in a folder of its own beside the runtime environment.

The folder goes first on ``PYTHONPATH``; what is not in it comes from the environment that this Python belongs to. LitServe and Ray
(``requirements/serving.in``) are locked under the runtime's own versions, so that torch and OpenVINO are ours.
"""

import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from scripts.local.installation import ROOT

_INSTALL_S: Final = 900


class NotInstalled(RuntimeError):
    """They cannot be had; the text is one line that says why."""


def folder(name: str) -> Path:
    """Find the packages of a lock, in the user's cache; install them on first use.

    :param name: of the lock in ``requirements/``.
    :raises NotInstalled: no index, no disk, no uv.
    """
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "shelfsight"
    lock = ROOT / "requirements" / f"{name}.txt"
    digest = hashlib.sha256(lock.read_bytes() + sys.version.encode()).hexdigest()
    made = caches / f"{name}-{digest[:16]}"
    if made.exists():
        return made
    try:
        caches.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=caches) as temp:
            packages = Path(temp) / "packages"
            _install(lock, packages)
            packages.rename(made)  # all of it or nothing: whoever finds the folder may use it
    except subprocess.TimeoutExpired as error:
        raise NotInstalled(f"the installation took more than {_INSTALL_S} s") from error
    except OSError as error:
        raise NotInstalled(str(error)) from error
    return made


def _install(lock: Path, packages: Path) -> None:
    uv = str(Path(sys.executable).with_name("uv"))
    command = [uv, "pip", "install", "--quiet", "--python", sys.executable, "--target", str(packages)]
    command += ["--require-hashes", "-r", str(lock)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=_INSTALL_S, check=False)
    if ended.returncode:
        said = ended.stderr.strip().splitlines() or [f"uv ended with code {ended.returncode}"]
        raise NotInstalled(" ".join(line.strip() for line in said))
