"""``scripts/test``: run all checks, on a developer's machine and in CI alike.

``--fast`` leaves out the tests that take a long time: the end-to-end tests, the fault tests and the tests marked as
slow. Further arguments are passed to pytest.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from scripts.local.installation import ROOT

_LINTS: Final = {
    "ruff": ["ruff", "check", "."],
    "mypy": ["mypy"],
    "imports": ["lint-imports", "--no-cache"],
    "hadolint": ["hadolint", "Dockerfile.web", "Dockerfile.worker"],
}
_PYTEST: Final = ["pytest", "-q", "-n", "2", "--dist", "loadfile"]
"""Two processes are used, because end-to-end tests wait more than they compute. All tests of a file run in the
same process."""
_FAST: Final = ["-m", "not slow and not e2e and not faults"]
_LIMIT_S: Final = 3600


def main() -> None:
    """Run the checks one after the other; if any fails, print the names of the failed checks and exit with 1."""
    parser = argparse.ArgumentParser(prog="scripts/test", description=__doc__)
    parser.add_argument("--fast", action="store_true", help="run only the linters, the unit tests and the quick tests with real servers (under 90 s)")
    parser.add_argument("--lint", action="store_true", help="run only the linters")
    arguments, pytest_arguments = parser.parse_known_args()
    failed = [name for name, command in _LINTS.items() if not _passes(name, command)]
    if not arguments.lint:
        if not arguments.fast and shutil.which("chromium") is None:
            print("No chromium on PATH, so the browser tests are skipped. To run them, install chromium (Debian: apt-get install chromium).", flush=True)
        # pytest runs last, so that its summary is the last line of the output.
        if failed:
            print(f"failed: {', '.join(failed)}", flush=True)
        if not _passes("pytest", [*_PYTEST, *(_FAST if arguments.fast else []), *pytest_arguments]):
            failed.append("pytest")
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)


def _passes(name: str, command: list[str]) -> bool:
    print(f"== {name}", flush=True)
    began = time.monotonic()
    program = str(Path(sys.executable).with_name(command[0]))
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    try:
        code = subprocess.run([program, *command[1:]], cwd=ROOT, env=environment, timeout=_LIMIT_S, check=False).returncode
    except subprocess.TimeoutExpired:
        print(f"{name} was stopped after {_LIMIT_S} s", flush=True)
        code = 1
    if name != "pytest":
        print(f"   {name}: {'ok' if code == 0 else 'failed'} in {time.monotonic() - began:.0f} s", flush=True)
    return code == 0


if __name__ == "__main__":
    main()
