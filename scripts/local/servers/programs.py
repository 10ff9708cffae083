"""The programs of the servers: where they are, and which version they have."""

import re
import signal
import subprocess
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Final

from scripts.local.servers.errors import Unusable

_TIMEOUT_S: Final = 30
_VERSION: Final = re.compile(r"(?:db version v|(Valkey|Redis) server v=)(\d+\.\d+\.\d+)")
_LIBRARY: Final = re.compile(r"(lib[\w+.-]+\.so[\d.]*)")


@dataclass(frozen=True, slots=True)
class Program:
    """An executable file of a server. ``name`` is MongoDB, Valkey or Redis, and ``version`` is like ``6.0.5``."""

    path: Path
    name: str
    version: str

    @property
    def series(self) -> str:
        """The first two numbers of the version, such as ``8.0``."""
        return self.version.rpartition(".")[0]


def probe(path: Path, what: str) -> Program:
    """Run a server with ``--version``, which also shows whether it runs on this machine.

    :param what: the beginning of an error message, such as ``The embedded MongoDB``.
    :raises Unusable: when the program does not run, or is another one.
    """
    try:
        result = subprocess.run([path, "--version"], capture_output=True, text=True, errors="replace", timeout=_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unusable(f"{what} cannot run on this machine ({error}).") from error
    if result.returncode == -signal.SIGILL:
        raise Unusable(f"{what} needs a CPU with AVX.")
    found = _VERSION.search(result.stdout)
    if result.returncode or found is None:
        lines = result.stderr.strip().splitlines()
        library = _LIBRARY.search(lines[-1]) if lines else None
        if library:
            raise Unusable(f"{what} needs {library[1]}; install the package that contains it (for libcurl: apt-get install libcurl4).")
        raise Unusable(f"{what} cannot run on this machine.")
    return Program(path, found[1] or "MongoDB", found[2])


def packaged(package: str, ending: str) -> Path:
    """Return the executable file of an installed Python package whose path ends with ``ending``.

    The package itself is not imported.

    :raises Unusable: when the package is not installed, or contains no such file.
    """
    try:
        files = metadata.files(package) or []
    except metadata.PackageNotFoundError as error:
        raise Unusable(f"The package {package} is not installed. Run scripts/start once.") from error
    for file in files:
        if file.as_posix().endswith(f"/{ending}"):
            path = Path(str(file.locate())).resolve()
            if not path.stat().st_mode & 0o100:
                path.chmod(0o755)
            return path
    raise Unusable(f"The package {package} contains no {ending} for this machine.")
