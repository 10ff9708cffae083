"""Control the Docker engine and one compose project with the ``docker`` command."""

import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[2]
_SHORT_S: Final = 60
"""Time limit in seconds for commands that only query or start something."""


class EngineError(Exception):
    """A command failed or took too long, or there is no Docker engine; the message names the command and the cause."""


def find_problem() -> str | None:
    """Return the reason why no Docker engine with compose can be used on this machine; None if one can be used."""
    for command in (["docker", "info", "--format", "{{.ServerVersion}}"], ["docker", "compose", "version", "--short"]):
        try:
            run(command, limit_s=20)
        except EngineError as error:
            return str(error)
    return None


def run(command: Sequence[str], *, limit_s: float = _SHORT_S, environment: dict[str, str] | None = None, shown: bool = False) -> str:
    """Run a command in the root folder of the project.

    :param shown: print the command's output instead of returning it.
    :returns: the command's standard output and standard error; empty if ``shown`` is true.
    :raises EngineError: when the command is not installed, fails, or takes longer than ``limit_s`` seconds.
    """
    try:
        result = subprocess.run(
            command,
            cwd=ROOT,
            env=os.environ | (environment or {}),
            stdout=None if shown else subprocess.PIPE,
            stderr=None if shown else subprocess.STDOUT,
            text=True,
            timeout=limit_s,
            check=False,
        )
    except FileNotFoundError as error:
        raise EngineError(f"{command[0]} is not installed; install it") from error
    except subprocess.TimeoutExpired as error:
        raise EngineError(f"{' '.join(command)}: not finished within {limit_s:.0f} s") from error
    if result.returncode != 0:
        raise EngineError(f"{' '.join(command)}: exit code {result.returncode}\n{(result.stdout or '')[-4000:]}".rstrip())
    return result.stdout or ""


@dataclass(frozen=True, slots=True)
class Deployment:
    """One compose project.

    ``variables`` are set in the environment of each command instead of in a ``.env`` file. If ``files`` is empty,
    compose uses its default files.
    """

    project: str | None = None
    variables: dict[str, str] = field(default_factory=dict)
    files: tuple[str, ...] = ()

    def compose(self, *arguments: str, limit_s: float = _SHORT_S, shown: bool = False) -> str:
        """Run ``docker compose`` for this project; see ``run`` for the result and the errors."""
        project = [] if self.project is None else ["--project-name", self.project]
        files = [part for file in self.files for part in ("--file", file)]
        return run(["docker", "compose", *project, *files, *arguments], limit_s=limit_s, environment=self.variables, shown=shown)

    def containers(self, service: str, *, running: bool = True) -> list[str]:
        """Return the ids of a service's running containers; with ``running=False``, include the stopped containers."""
        return self.compose("--profile", "*", "ps", "--quiet", *([] if running else ["--all"]), service).split()

    def as_started(self) -> "Deployment":
        """Return a copy of this object whose ``files`` are the compose files that the running project was started with.

        For example, the files can include ``docker-compose.gpu.yaml``.

        :raises EngineError: when the nginx container of the project is not running.
        """
        found = self.containers("nginx")
        if not found:
            raise EngineError("The deployment is not running; start it with docker compose up --detach --wait.")
        config_files = str(self.inspect(found[0])["Config"]["Labels"]["com.docker.compose.project.config_files"])
        return replace(self, files=tuple(config_files.split(",")))

    def execute(self, container: str, *command: str, limit_s: float = _SHORT_S) -> str:
        """Run a command in a container, and return the command's output."""
        return run(["docker", "exec", container, *command], limit_s=limit_s)

    def manage(self, command: str, container: str, *, limit_s: float = _SHORT_S) -> str:
        """Run ``docker COMMAND CONTAINER``.

        Examples of ``command`` are ``stop`` (which uses the container's own grace period), ``rm``, ``pause`` and
        ``logs``.
        """
        return run(["docker", command, container], limit_s=limit_s)

    def inspect(self, name: str) -> dict[str, Any]:
        """Return the output of ``docker inspect`` for one container or image."""
        (found,) = json.loads(run(["docker", "inspect", name]))
        details: dict[str, Any] = found
        return details
