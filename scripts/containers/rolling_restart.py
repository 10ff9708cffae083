"""Replace what runs by what is built, without a failed request: the web, then the workers and inspectors one by one, then the sweep.

Others of the new kind (web-next) stand in for the web: they are started and answer; the old ones say that they are not ready, nginx
turns to the others, the old ones finish what they are answering and are replaced; nginx turns back. A worker that is stopped hands
its claim back. Ended on the way, it may be run again.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from typing import Final

from scripts.containers.engine import Deployment, EngineError

SERVICES: Final = ("web", "worker", "inspector", "sweep")
_BUILD_S: Final = 3600
_START_S: Final = 300
_STOP_S: Final = 120
_INDEXES_S: Final = 3600
"""An index over millions of images takes a while; the old ones go on meanwhile."""
_IDLE_S: Final = 90
"""nginx waits 75 s for an answer."""
_NAMES_S: Final = 2.5
"""nginx asks for addresses again after a second, and a request may have got its address just before."""
_SWITCH: Final = "/tmp/nginx/roll"  # noqa: S108 -- in the container; deploy/nginx/shelfsight.conf looks for it
_DRAINING: Final = "/tmp/draining"  # noqa: S108 -- in the container: WEB_DRAIN_FILE of docker-compose.yaml
_PORT: Final = 5000
_ESTABLISHED: Final = "01"

Say = Callable[[str], None]


def roll(deployment: Deployment, services: Sequence[str], say: Say) -> None:
    """Replace some of ``SERVICES``.

    :raises EngineError: something did not start, or did not end; what serves goes on serving.
    """
    say("the indexes that the new ones need")
    deployment.compose("run", "--rm", "--no-deps", "web", "python", "-m", "shared.storage.schema", limit_s=_INDEXES_S)
    if "web" in services:
        _roll_web(deployment, say)
    for service in ("worker", "inspector"):
        if service in services:
            _roll_workers(deployment, service, say)
    if "sweep" in services:
        say("sweep: replacing it")
        deployment.compose("up", "--detach", "--no-deps", "--force-recreate", "--wait", "sweep", limit_s=_START_S)


def _roll_web(deployment: Deployment, say: Say) -> None:
    (nginx,) = deployment.containers("nginx")
    if deployment.execute(nginx, "sh", "-c", f"if [ -e {_SWITCH} ]; then echo turned; fi").strip() == "turned":
        say("web: those that stand in since an earlier roll are relieved")
        deployment.compose("up", "--detach", "--no-deps", "--wait", "web", limit_s=_START_S)
        _turn_back(deployment, nginx, say)
    say("web: starting those that stand in")
    try:
        deployment.compose("--profile", "roll", "up", "--detach", "--no-deps", "--wait", "web-next", limit_s=_START_S)
    except EngineError:
        _remove_stand_ins(deployment)
        raise
    _drain(deployment, "web")
    deployment.execute(nginx, "touch", _SWITCH)
    _let_finish(deployment, "web", say)
    say("web: replacing them")
    deployment.compose("up", "--detach", "--no-deps", "--force-recreate", "--wait", "web", limit_s=_START_S)
    _turn_back(deployment, nginx, say)


def _turn_back(deployment: Deployment, nginx: str, say: Say) -> None:
    _drain(deployment, "web-next")
    deployment.execute(nginx, "rm", "-f", _SWITCH)
    _let_finish(deployment, "web-next", say)
    _remove_stand_ins(deployment)


def _remove_stand_ins(deployment: Deployment) -> None:
    deployment.compose("--profile", "roll", "rm", "--stop", "--force", "web-next", limit_s=_STOP_S)


def _drain(deployment: Deployment, service: str) -> None:
    """Let a service's containers say that they are not ready."""
    for container in deployment.containers(service):
        deployment.execute(container, "touch", _DRAINING)


def _let_finish(deployment: Deployment, service: str, say: Say) -> None:
    """Wait until nothing is connected to a service's containers any more."""
    left = deployment.containers(service)
    time.sleep(_NAMES_S)
    until = time.monotonic() + _IDLE_S
    while left := [container for container in left if _connections(deployment, container)]:
        if time.monotonic() > until:
            say(f"{service}: something is being answered for more than {_IDLE_S} s; it is given the time of a stop")
            return
        say(f"{service}: {len(left)} still answering")
        time.sleep(0.5)


def _connections(deployment: Deployment, container: str) -> int:
    """Count the connections to a web container's port: nginx keeps none without a request."""
    rows = [line.split() for line in deployment.execute(container, "cat", "/proc/net/tcp").splitlines()[1:]]
    return sum(row[3] == _ESTABLISHED and int(row[1].rpartition(":")[2], 16) == _PORT and not row[1].startswith("0100007F") for row in rows)


def _roll_workers(deployment: Deployment, service: str, say: Say) -> None:
    """Replace one after the other; in the end there are as many as the compose file says."""
    old = deployment.containers(service)
    for number, container in enumerate(old, 1):
        say(f"{service} {number} of {len(old)}: replacing it")
        deployment.manage("stop", container, limit_s=_STOP_S)
        deployment.manage("rm", container)
        deployment.compose("up", "--detach", "--no-deps", "--no-recreate", "--wait", service, limit_s=_START_S)
    if not old:
        say(f"{service}: none runs, starting them")
        deployment.compose("up", "--detach", "--no-deps", "--wait", service, limit_s=_START_S)


def main() -> None:
    """Replace what was asked for."""
    parser = argparse.ArgumentParser(prog="scripts/roll", description=__doc__)
    parser.add_argument("service", nargs="*", metavar="SERVICE", help=f"{', '.join(SERVICES)} (default: all of them)")
    parser.add_argument("--build", action="store_true", help="build the images first")
    parser.add_argument("--project", metavar="NAME", help="the compose project (default: shelfsight)")
    given = parser.parse_args()
    if unknown := set(given.service) - set(SERVICES):
        parser.error(f"no service that is rolled: {', '.join(sorted(unknown))}; there are {', '.join(SERVICES)}")
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - began:5.1f} s] {text}", flush=True)

    try:
        deployment = Deployment(given.project).as_started()
        if given.build:
            say("building")
            deployment.compose("build", limit_s=_BUILD_S, shown=True)
        roll(deployment, given.service or SERVICES, say)
    except EngineError as error:
        sys.exit(f"{error}\nWhat served before goes on serving; run it again when this is mended.")
    say("done")


if __name__ == "__main__":
    main()
