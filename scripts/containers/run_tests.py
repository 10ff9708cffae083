"""Build, start, test and stop a whole deployment in containers, on any Docker engine; print each step and its time.

First, the deployment is started with its default settings, then once more in production: with credentials, on all addresses,
and with HTTPS. Each is a separate compose project (shelfsight-test, shelfsight-test-production) on a free port; other
containers on the engine are not changed. If there is no Docker engine, the tests are skipped, and the exit code is 0, or 1
with --must.
"""

import argparse
import contextlib
import ssl
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx

from scripts.containers import engine
from scripts.containers.engine import ROOT, Deployment, EngineError
from scripts.local.servers.ports import free_port

_PROJECT: Final = "shelfsight-test"
_SUBNET: Final = "10.213.78.0/24"
_PRODUCTION_SUBNET: Final = "10.213.80.0/24"
_PRODUCTION_TESTS: Final = "tests/containers/test_production.py"
_IMAGES: Final = {"WEB_IMAGE": f"{_PROJECT}-web", "WORKER_IMAGE": f"{_PROJECT}-worker"}
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
    with tempfile.TemporaryDirectory() as folder:
        phases = (_default_phase(pytest_arguments), _production_phase(Path(folder), pytest_arguments))
        deployment = phases[0].deployment
        succeeded = _run_step("lint", lambda: _lint(deployment))
        if not _run_step("build", lambda: _build(deployment)):
            sys.exit(1)
        succeeded &= _run_step("sizes", lambda: _sizes(deployment))
        for phase in phases:
            succeeded &= _run_phase(phase, keep=arguments.keep)
            if arguments.keep:
                break
    sys.exit(0 if succeeded else 1)


@dataclass(frozen=True, slots=True)
class Phase:
    """One deployment, its address, and by name the steps that start and test it. Each step needs those before it."""

    deployment: Deployment
    url: str
    steps: Mapping[str, Callable[[], str]]


def _default_phase(pytest_arguments: Sequence[str]) -> Phase:
    port = free_port()
    variables = _IMAGES | {"LISTEN": f"127.0.0.1:{port}", "FRONT_SUBNET": _SUBNET, "WORKER_REPLICAS": "2", "UPLOAD_BUFFER": "256m"}
    deployment, url = Deployment(_PROJECT, variables), f"http://127.0.0.1:{port}"
    files = ["tests/e2e", "tests/containers", f"--ignore={_PRODUCTION_TESTS}"]
    steps: dict[str, Callable[[], str]] = {
        "up": lambda: _up(deployment, url),
        "tests/e2e and tests/containers": lambda: _test(deployment, url, [*files, *pytest_arguments]),
    }
    return Phase(deployment, url, steps)


def _production_phase(folder: Path, pytest_arguments: Sequence[str]) -> Phase:
    """Return the phase in production.

    :param folder: an empty folder for a certificate.
    """
    port = free_port()
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    variables = _IMAGES | {
        "SHELFSIGHT_ENV": "production",
        "SIGNUP": "invited",
        "LISTEN": f"0.0.0.0:{port}",
        "TLS_CERTIFICATE": str(certificate),
        "TLS_KEY": str(key),
        "FRONT_SUBNET": _PRODUCTION_SUBNET,
        "UPLOAD_BUFFER": "256m",
    }
    deployment, url = Deployment(f"{_PROJECT}-production", variables), f"https://127.0.0.1:{port}"
    steps: dict[str, Callable[[], str]] = {
        "certificate": lambda: _make_certificate(certificate, key),
        "up in production": lambda: _up(deployment, url, certificate),
        _PRODUCTION_TESTS: lambda: _test(deployment, url, [_PRODUCTION_TESTS, *pytest_arguments]),
    }
    return Phase(deployment, url, steps)


def _run_phase(phase: Phase, *, keep: bool) -> bool:
    """Run the steps of a phase, and stop its deployment unless ``keep`` is true. Return whether all steps have succeeded."""
    try:
        succeeded = all(_run_step(name, step) for name, step in phase.steps.items())
        if not succeeded:
            _show_logs(phase.deployment)
    finally:
        if keep:
            print(f"The containers of project {phase.deployment.project} are still running at {phase.url}", flush=True)
        else:
            stopped = _run_step("down", lambda: _down(phase.deployment))
    return succeeded and (keep or stopped)


def _test(deployment: Deployment, url: str, arguments: Sequence[str]) -> str:
    command = [sys.executable, "-m", "pytest", "-q", "--base-url", url, "--deployment", str(deployment.project), *arguments]
    engine.run(command, limit_s=_TESTS_S, environment=deployment.variables | {"PYTHONPATH": str(ROOT)}, shown=True)
    return ""


def _make_certificate(certificate: Path, key: Path) -> str:
    """Make a certificate for the deployment that its own key has signed."""
    engine.run([
        "openssl", "req", "-x509", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-days", "2", "-subj", "/CN=test",
        "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate),
    ])  # fmt: skip
    return ""


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
    web, worker, base = (int(deployment.inspect(name)["Size"]) / 1e6 for name in (*_IMAGES.values(), _BASE))
    sizes = f"web {web:.0f} MB ({web - base:.0f} above its base), worker {worker:.0f} MB"
    if web - base > _WEB_MB:
        raise EngineError(f"{sizes}; the limit for the web image is {_WEB_MB} MB above its base")
    return sizes


def _up(deployment: Deployment, url: str, certificate: Path | None = None) -> str:
    """Start the deployment, wait until /readyz reports ready, and return a text with the seconds that this took.

    The deployment is ready only when a worker is running.

    :param certificate: the certificate of the deployment, with HTTPS.
    """
    began = time.monotonic()
    deployment.compose("up", "--detach", "--wait", limit_s=_UP_S)
    compose_s = time.monotonic() - began
    verify = ssl.create_default_context(cafile=certificate)
    while not _is_ready(url, verify):
        if time.monotonic() - began > _UP_S:
            raise EngineError(f"not ready after {_UP_S} s")
        time.sleep(0.2)  # poll, because the service sends no notification
    ready_s = time.monotonic() - began
    times = f"ready after {ready_s:.1f} s (compose waited {compose_s:.1f} s)"
    if ready_s > _READY_S:
        raise EngineError(f"{times}; the limit is {_READY_S:.0f} s")
    return times


def _is_ready(url: str, verify: ssl.SSLContext) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(f"{url}/readyz", timeout=5, trust_env=False, verify=verify).status_code == 200
    return False


def _show_logs(deployment: Deployment) -> None:
    with contextlib.suppress(EngineError):
        print(deployment.compose("logs", "--tail", "30", "--no-color")[-8000:], flush=True)


def _down(deployment: Deployment) -> str:
    deployment.compose("--profile", "*", "down", "--volumes", "--timeout", "20", limit_s=_UP_S)
    return ""


if __name__ == "__main__":
    main()
