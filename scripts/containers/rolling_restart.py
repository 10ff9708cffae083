"""Replace the running containers with containers of the current images, without a failed request.

The web containers are replaced first, then the workers, inspectors and workers for jobs one at a time, then the sweep. While the web
containers are being replaced, temporary containers of the new image (web-next) serve the requests. First, the temporary
containers are started and become ready. Next, the old containers report that they are not ready, and nginx switches to
web-next. Then the old containers complete their requests and are replaced. Finally, nginx switches back. A worker
releases its claim when it is stopped. When all services are replaced, the update is finished (``scripts/admin migrate --finish``):
what the old containers have written in the meantime is completed, and what only they have used is dropped. An interrupted rolling restart can be run again.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from typing import Final

from scripts.containers.engine import Deployment, EngineError

SERVICES: Final = ("web", "worker", "inspector", "jobs", "sweep")
_BUILD_S: Final = 3600
_START_S: Final = 300
_STOP_S: Final = 120
_MIGRATE_S: Final = 12 * 3600
"""Time limit in seconds. Changing millions of documents takes a long time; meanwhile, the old containers serve requests."""
_IDLE_S: Final = 90
"""Time limit in seconds. It is longer than the 75 s for which nginx waits for a response."""
_DNS_S: Final = 2.5
"""Seconds after which nginx sends no new request to the old containers. nginx resolves names every second, and may have
resolved the old name just before the switch."""
_SWITCH: Final = "/tmp/nginx/roll"  # noqa: S108 -- a path in the container; deploy/nginx/turn.conf checks whether this file exists
_DRAINING: Final = "/tmp/draining"  # noqa: S108 -- a path in the container; it is WEB_DRAIN_FILE in docker-compose.yaml
_PORT: Final = 5000
_ESTABLISHED: Final = "01"

Log = Callable[[str], None]


def roll(deployment: Deployment, services: Sequence[str], log: Log) -> None:
    """Replace the containers of ``services`` (some of ``SERVICES``), and pass a description of each step to ``log``.

    :raises EngineError: when a container did not start or stop; the containers that serve requests then continue to
        run.
    """
    log("creating the secrets that the new version needs, and running its migrations")
    deployment.compose("run", "--rm", "--no-deps", "make-secrets", limit_s=_START_S)
    _migrate(deployment)
    if "web" in services:
        _roll_web(deployment, log)
    for service in ("worker", "inspector", "jobs"):
        if service in services:
            _roll_workers(deployment, service, log)
    if "sweep" in services:
        log("sweep: replacing the container")
        deployment.compose("up", "--detach", "--no-deps", "--force-recreate", "--wait", "sweep", limit_s=_START_S)
    if set(services) >= set(SERVICES):
        log("finishing the update: completing what the old containers have written in the meantime, and dropping what only they have used")
        _migrate(deployment, "--finish")
    else:
        log("the update is not finished before all services are replaced; then run migrate --finish, or scripts/roll without arguments")


def _migrate(deployment: Deployment, *options: str) -> None:
    command = ("python", "-m", "scripts.administration", "migrate", *options)
    deployment.compose("run", "--rm", "--no-deps", "web", *command, limit_s=_MIGRATE_S, shown=True)


def _roll_web(deployment: Deployment, log: Log) -> None:
    (nginx,) = deployment.containers("nginx")
    if deployment.execute(nginx, "sh", "-c", f"if [ -e {_SWITCH} ]; then echo switched; fi").strip() == "switched":
        log("web: web-next is still serving requests after an interrupted rolling restart; starting web and switching back")
        deployment.compose("up", "--detach", "--no-deps", "--wait", "web", limit_s=_START_S)
        _switch_back(deployment, nginx, log)
    log("web: starting the temporary containers (web-next)")
    try:
        deployment.compose("--profile", "roll", "up", "--detach", "--no-deps", "--wait", "web-next", limit_s=_START_S)
    except EngineError:
        _remove_web_next(deployment)
        raise
    _drain(deployment, "web")
    deployment.execute(nginx, "touch", _SWITCH)
    _wait_until_idle(deployment, "web", log)
    log("web: replacing the containers")
    deployment.compose("up", "--detach", "--no-deps", "--force-recreate", "--wait", "web", limit_s=_START_S)
    _switch_back(deployment, nginx, log)


def _switch_back(deployment: Deployment, nginx: str, log: Log) -> None:
    _drain(deployment, "web-next")
    deployment.execute(nginx, "rm", "-f", _SWITCH)
    _wait_until_idle(deployment, "web-next", log)
    _remove_web_next(deployment)


def _remove_web_next(deployment: Deployment) -> None:
    deployment.compose("--profile", "roll", "rm", "--stop", "--force", "web-next", limit_s=_STOP_S)


def _drain(deployment: Deployment, service: str) -> None:
    """Make a service's containers report that they are not ready."""
    for container in deployment.containers(service):
        deployment.execute(container, "touch", _DRAINING)


def _wait_until_idle(deployment: Deployment, service: str, log: Log) -> None:
    """Wait until a service's containers have no requests in progress, for at most ``_IDLE_S`` seconds."""
    busy = deployment.containers(service)
    time.sleep(_DNS_S)  # until then, nginx may send requests to an address that it has resolved before
    until = time.monotonic() + _IDLE_S
    while busy := [container for container in busy if _count_connections(deployment, container)]:
        if time.monotonic() > until:
            log(f"{service}: a request is still in progress after {_IDLE_S} s; it may continue until the container's grace period ends")
            return
        log(f"{service}: {len(busy)} containers are still serving requests")
        time.sleep(0.5)  # poll, because containers send no notification


def _count_connections(deployment: Deployment, container: str) -> int:
    """Return the number of requests in progress in a web container.

    This is the number of connections to the container's port, because the proxy (nginx) keeps no idle connections.
    """
    rows = [line.split() for line in deployment.execute(container, "cat", "/proc/net/tcp").splitlines()[1:]]
    return sum(row[3] == _ESTABLISHED and int(row[1].rpartition(":")[2], 16) == _PORT and not row[1].startswith("0100007F") for row in rows)


def _roll_workers(deployment: Deployment, service: str, log: Log) -> None:
    """Replace a service's containers one at a time.

    Afterwards, the service has as many containers as the compose file sets.
    """
    old = deployment.containers(service)
    for number, container in enumerate(old, 1):
        log(f"{service} {number} of {len(old)}: replacing the container")
        deployment.manage("stop", container, limit_s=_STOP_S)
        deployment.manage("rm", container)
        deployment.compose("up", "--detach", "--no-deps", "--no-recreate", "--wait", service, limit_s=_START_S)
    if not old:
        log(f"{service}: no container is running; starting the service")
        deployment.compose("up", "--detach", "--no-deps", "--wait", service, limit_s=_START_S)


def main() -> None:
    """Replace the containers of the services that the arguments name."""
    parser = argparse.ArgumentParser(prog="scripts/roll", description=__doc__)
    parser.add_argument("service", nargs="*", metavar="SERVICE", help=f"service to replace: {', '.join(SERVICES)} (default: all)")
    parser.add_argument("--build", action="store_true", help="build the images first")
    parser.add_argument("--project", metavar="NAME", help="compose project (default: shelfsight)")
    arguments = parser.parse_args()
    if unknown := set(arguments.service) - set(SERVICES):
        parser.error(f"unknown service: {', '.join(sorted(unknown))}; choose from {', '.join(SERVICES)}")
    began = time.monotonic()

    def log(text: str) -> None:
        print(f"[{time.monotonic() - began:5.1f} s] {text}", flush=True)

    try:
        deployment = Deployment(arguments.project).as_started()
        if arguments.build:
            log("building")
            deployment.compose("build", limit_s=_BUILD_S, shown=True)
        roll(deployment, arguments.service or SERVICES, log)
    except EngineError as error:
        sys.exit(f"{error}\nThe containers that served requests before are still serving requests. Fix the cause, then run scripts/roll again.")
    log("done")


if __name__ == "__main__":
    main()
