"""Build, start, test and stop a whole deployment in containers, on any Docker engine; print each step and its time.

The deployment is a separate compose project (shelfsight-test) on a free port; other containers on the engine are not
changed. If there is no Docker engine, the tests are skipped, and the exit code is 0, or 1 with --must.
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
from scripts.local.servers.ports import free_port

_PROJECT: Final = "shelfsight-test"
_SUBNET: Final = "10.213.78.0/24"
_BUILD_S: Final = 3600
_UP_S: Final = 300
_TESTS_S: Final = 1800
_READY_S: Final = 30.0
"""Time limit in seconds from ``docker compose up`` until the service is ready. Building the images does not count."""
_WEB_MB: Final = 120
"""Limit in MB for the size of the web image without its base image."""
_BASE: Final = "python:3.12-slim-bookworm"


def main() -> None:
    """Run the steps of the container test; exit with 1 if a step failed."""
    parser = argparse.ArgumentParser(prog="scripts/test-containers", description=__doc__)
    parser.add_argument("--must", action="store_true", help="exit with 1 when there is no Docker engine")
    parser.add_argument("--keep", action="store_true", help="leave the deployment running and print its address")
    arguments, pytest_arguments = parser.parse_known_args()
    if problem := engine.find_problem():
        print(f"skipped: no Docker engine with compose on this machine ({problem.splitlines()[0]})", flush=True)
        sys.exit(1 if arguments.must else 0)
    port = free_port()
    variables = {"WEB_IMAGE": f"{_PROJECT}-web", "WORKER_IMAGE": f"{_PROJECT}-worker", "LISTEN": f"127.0.0.1:{port}", "FRONT_SUBNET": _SUBNET}
    deployment = Deployment(_PROJECT, variables | {"WORKER_REPLICAS": "2", "UPLOAD_BUFFER": "256m"})
    failed = False
    try:
        for name, step in _steps(deployment, f"http://127.0.0.1:{port}", pytest_arguments).items():
            failed |= not _run_step(name, step)
            if failed and name in {"build", "up"}:
                _show_logs(deployment)
                break
    finally:
        if arguments.keep:
            print(f"The containers of project {_PROJECT} are still running at http://127.0.0.1:{port}", flush=True)
        else:
            failed |= not _run_step("down", lambda: _down(deployment))
    sys.exit(1 if failed else 0)


def _steps(deployment: Deployment, url: str, pytest_arguments: Sequence[str]) -> dict[str, Callable[[], str]]:
    def tests() -> str:
        command = [sys.executable, "-m", "pytest", "-q", "tests/e2e", "tests/containers", "--base-url", url, "--deployment", _PROJECT, *pytest_arguments]
        engine.run(command, limit_s=_TESTS_S, environment=deployment.variables | {"PYTHONPATH": str(ROOT)}, shown=True)
        return ""

    return {
        "lint": lambda: _lint(deployment),
        "build": lambda: _build(deployment),
        "sizes": lambda: _sizes(deployment),
        "up": lambda: _up(deployment, url),
        "tests/e2e and tests/containers": tests,
    }


def _run_step(name: str, step: Callable[[], str]) -> bool:
    print(f"== {name}", flush=True)
    began = time.monotonic()
    try:
        result = step()
    except EngineError as error:
        print(f"   {name}: failed in {time.monotonic() - began:.1f} s: {error}", flush=True)
        return False
    print(f"   {name}: ok in {time.monotonic() - began:.1f} s{': ' if result else ''}{result}", flush=True)
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
    sizes = f"web {web:.0f} MB ({web - base:.0f} above its base), worker {worker:.0f} MB"
    if web - base > _WEB_MB:
        raise EngineError(f"{sizes}; the limit for the web image is {_WEB_MB} MB above its base")
    return sizes


def _up(deployment: Deployment, url: str) -> str:
    """Start the deployment, wait until /readyz reports ready, and return a text with the seconds that this took.

    The deployment is ready only when a worker is running.
    """
    began = time.monotonic()
    deployment.compose("up", "--detach", "--wait", limit_s=_UP_S)
    compose_s = time.monotonic() - began
    while not _is_ready(url):
        if time.monotonic() - began > _UP_S:
            raise EngineError(f"not ready after {_UP_S} s")
        time.sleep(0.2)  # poll, because the service sends no notification
    ready_s = time.monotonic() - began
    times = f"ready after {ready_s:.1f} s (compose waited {compose_s:.1f} s)"
    if ready_s > _READY_S:
        raise EngineError(f"{times}; the limit is {_READY_S:.0f} s")
    return times


def _is_ready(url: str) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(f"{url}/readyz", timeout=5, trust_env=False).status_code == 200
    return False


def _show_logs(deployment: Deployment) -> None:
    with contextlib.suppress(EngineError):
        print(deployment.compose("logs", "--tail", "30", "--no-color")[-8000:], flush=True)


def _down(deployment: Deployment) -> str:
    deployment.compose("--profile", "*", "down", "--volumes", "--timeout", "20", limit_s=_UP_S)
    return ""


if __name__ == "__main__":
    main()
