"""Build, start, test and stop everything in containers, on any Docker engine; the steps and their times are printed.

A project of its own (shelfsight-test) on a free port: what else runs on the engine is not touched. Without an engine it says so
and ends well, with --must it ends with 1.
"""

import argparse
import contextlib
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import httpx

from scripts.containers import engine
from scripts.containers.engine import ROOT, Deployment, EngineError
from scripts.local.embedded_servers import free_port

_PROJECT: Final = "shelfsight-test"
_SUBNET: Final = "10.213.78.0/24"
_BUILD_S: Final = 3600
_UP_S: Final = 300
_TESTS_S: Final = 1800
_READY_S: Final = 30.0
"""From `up` to ready, with the images built."""
_WEB_MB: Final = 120
"""Most that the web image may add to its base."""
_BASE: Final = "python:3.12-slim-bookworm"


def main() -> None:
    """Take every step; end with 1 when one failed."""
    parser = argparse.ArgumentParser(prog="scripts/test-containers", description=__doc__)
    parser.add_argument("--must", action="store_true", help="that there is no engine is a failure")
    parser.add_argument("--keep", action="store_true", help="leave everything running, and say where")
    asked, for_pytest = parser.parse_known_args()
    if problem := engine.missing():
        print(f"skipped: there is no Docker engine with compose here ({problem.splitlines()[0]})", flush=True)
        sys.exit(1 if asked.must else 0)
    port = free_port()
    names = {"WEB_IMAGE": f"{_PROJECT}-web", "WORKER_IMAGE": f"{_PROJECT}-worker", "LISTEN": f"127.0.0.1:{port}", "FRONT_SUBNET": _SUBNET}
    deployment = Deployment(_PROJECT, names | {"WORKER_REPLICAS": "2", "UPLOAD_BUFFER": "256m"})
    failed = False
    try:
        for name, step in _steps(deployment, f"http://127.0.0.1:{port}", for_pytest).items():
            failed |= not _taken(name, step)
            if failed and name in {"build", "up"}:
                _show_logs(deployment)
                break
    finally:
        if asked.keep:
            print(f"left running: http://127.0.0.1:{port}, project {_PROJECT}", flush=True)
        else:
            failed |= not _taken("down", lambda: _down(deployment))
    sys.exit(1 if failed else 0)


def _steps(deployment: Deployment, url: str, for_pytest: Sequence[str]) -> dict[str, Callable[[], str]]:
    def tests() -> str:
        command = [sys.executable, "-m", "pytest", "-q", "tests/e2e", "tests/containers", "--base-url", url, "--deployment", _PROJECT, *for_pytest]
        engine.run(command, limit_s=_TESTS_S, environment=deployment.variables | {"PYTHONPATH": str(ROOT)}, shown=True)
        return ""

    return {
        "lint": lambda: _lint(deployment),
        "build": lambda: _build(deployment),
        "sizes": lambda: _sizes(deployment),
        "up": lambda: _up(deployment, url),
        "tests/e2e and tests/containers": tests,
    }


def _taken(name: str, step: Callable[[], str]) -> bool:
    print(f"== {name}", flush=True)
    began = time.monotonic()
    try:
        said = step()
    except EngineError as error:
        print(f"   {name}: failed in {time.monotonic() - began:.1f} s: {error}", flush=True)
        return False
    print(f"   {name}: ok in {time.monotonic() - began:.1f} s{': ' if said else ''}{said}", flush=True)
    return True


def _lint(deployment: Deployment) -> str:
    program = Path(sys.executable).with_name("hadolint")
    engine.run([str(program), "Dockerfile.web", "Dockerfile.worker"])
    deployment.compose("config", "--quiet")
    deployment.compose("--file", "docker-compose.yaml", "--file", "docker-compose.gpu.yaml", "config", "--quiet")
    return "hadolint, docker compose config"


def _build(deployment: Deployment) -> str:
    deployment.compose("build", limit_s=_BUILD_S)
    return ""


def _sizes(deployment: Deployment) -> str:
    web, worker, base = (int(deployment.inspect(name)["Size"]) / 1e6 for name in (f"{_PROJECT}-web", f"{_PROJECT}-worker", _BASE))
    said = f"web {web:.0f} MB ({web - base:.0f} above its base), worker {worker:.0f} MB"
    if web - base > _WEB_MB:
        raise EngineError(f"{said}; the web may be {_WEB_MB} above")
    return said


def _up(deployment: Deployment, url: str) -> str:
    """Start all of it; ready is said by /readyz, which asks for a living worker too."""
    began = time.monotonic()
    deployment.compose("up", "--detach", "--wait", limit_s=_UP_S)
    waited = time.monotonic() - began
    while not _is_ready(url):
        if time.monotonic() - began > _UP_S:
            raise EngineError("not ready")
        time.sleep(0.2)
    ready = time.monotonic() - began
    said = f"ready after {ready:.1f} s (compose waited {waited:.1f})"
    if ready > _READY_S:
        raise EngineError(f"{said}; it may take {_READY_S:.0f}")
    return said


def _is_ready(url: str) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(f"{url}/readyz", timeout=5).status_code == 200
    return False


def _show_logs(deployment: Deployment) -> None:
    with contextlib.suppress(EngineError):
        print(deployment.compose("logs", "--tail", "30", "--no-color")[-8000:], flush=True)


def _down(deployment: Deployment) -> str:
    deployment.compose("--profile", "*", "down", "--volumes", "--timeout", "20", limit_s=_UP_S)
    return ""


if __name__ == "__main__":
    main()
