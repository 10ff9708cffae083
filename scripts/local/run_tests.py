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
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, NamedTuple

from scripts.local.installation import ROOT

_LINTS: Final = {
    "ruff": ["ruff", "check", "."],
    "mypy": ["mypy"],
    "imports": ["lint-imports", "--no-cache"],
    "bandit": ["bandit", "-q", "-c", "pyproject.toml", "-r", "shared", "web", "worker", "scripts", "deploy"],
    "hadolint": ["hadolint", "Dockerfile.web", "Dockerfile.worker"],
}
_PYTEST: Final = ["pytest", "-q", "-n", "3", "--dist", "loadfile", "--no-loadscope-reorder"]
"""Three processes are used on two cores, because the tests wait for as long as they compute. All tests of a file run in
the same process, and the files are begun in the order of the collection (``tests/conftest.py``)."""
_FAST: Final = ["-m", "not slow and not e2e and not faults"]
_LIMIT_S: Final = 3600


def main() -> None:
    """Run the checks; if any fails, print the names of the failed checks and exit with 1."""
    parser = argparse.ArgumentParser(prog="scripts/test", description=__doc__)
    parser.add_argument("--fast", action="store_true", help="run only the linters, the unit tests and the quick tests with real servers (under 90 s)")
    parser.add_argument("--lint", action="store_true", help="run only the linters")
    arguments, pytest_arguments = parser.parse_known_args()
    with ThreadPoolExecutor(1) as pool:  # the linters run one after the other, beside the tests
        lints = {name: pool.submit(_run, name, command, capture=True) for name, command in _LINTS.items()}
        tests_passed = arguments.lint or _test(pytest_arguments, fast=arguments.fast)
        failed = [name for name, lint in lints.items() if not _report(lint.result())]
    if not tests_passed:
        failed.append("pytest")
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)


class _Result(NamedTuple):
    name: str
    code: int
    seconds: float
    output: str


def _test(arguments: list[str], *, fast: bool) -> bool:
    if not fast and shutil.which("chromium") is None:
        print("No chromium on PATH, so the browser tests are skipped. To run them, install chromium (Debian: apt-get install chromium).", flush=True)
    print("== pytest", flush=True)
    return _run("pytest", [*_PYTEST, *(_FAST if fast else []), *arguments], capture=False).code == 0


def _report(result: _Result) -> bool:
    verdict = "ok" if result.code == 0 else "failed"
    print(f"== {result.name}\n{result.output}   {result.name}: {verdict} in {result.seconds:.0f} s", flush=True)
    return result.code == 0


def _run(name: str, command: list[str], *, capture: bool) -> _Result:
    began = time.monotonic()
    program = str(Path(sys.executable).with_name(command[0]))
    # The tests start hundreds of processes. Without bytecode, each of them compiles the sources again.
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": ""}
    stdout, stderr = (subprocess.PIPE, subprocess.STDOUT) if capture else (None, None)
    try:
        ended = subprocess.run([program, *command[1:]], cwd=ROOT, env=environment, timeout=_LIMIT_S, check=False, text=True, stdout=stdout, stderr=stderr)
    except subprocess.TimeoutExpired:
        return _Result(name, 1, _LIMIT_S, f"{name} was stopped after {_LIMIT_S} s\n")
    return _Result(name, ended.returncode, time.monotonic() - began, ended.stdout or "")


if __name__ == "__main__":
    main()
