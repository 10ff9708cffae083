"""The Docker engine and one compose project on it, through their own command lines."""

import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[2]
_SOON_S: Final = 60
"""For calls that only ask or start something."""


class EngineError(Exception):
    """A command failed, took too long, or there is no engine; the text says which."""


def missing() -> str | None:
    """Say why no engine with compose can be used here; None when one can."""
    for command in (["docker", "info", "--format", "{{.ServerVersion}}"], ["docker", "compose", "version", "--short"]):
        try:
            run(command, limit_s=20)
        except EngineError as error:
            return str(error)
    return None


def run(command: Sequence[str], *, limit_s: float = _SOON_S, environment: dict[str, str] | None = None, shown: bool = False) -> str:
    """Run a command in the project's folder and give what it printed.

    :param shown: let its output through instead; nothing is given then.
    :raises EngineError: it is not there, failed or took too long.
    """
    try:
        done = subprocess.run(
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
        raise EngineError(f"{command[0]} is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise EngineError(f"{' '.join(command)}: not done within {limit_s:.0f} s") from error
    if done.returncode != 0:
        raise EngineError(f"{' '.join(command)}: ended with {done.returncode}\n{(done.stdout or '')[-4000:]}".rstrip())
    return done.stdout or ""


@dataclass(frozen=True, slots=True)
class Deployment:
    """One compose project. ``variables`` stand for what its ``.env`` would say; without ``files`` compose looks for them."""

    project: str | None = None
    variables: dict[str, str] = field(default_factory=dict)
    files: tuple[str, ...] = ()

    def compose(self, *arguments: str, limit_s: float = _SOON_S, shown: bool = False) -> str:
        """Run ``docker compose`` on it."""
        project = [] if self.project is None else ["--project-name", self.project]
        files = [part for file in self.files for part in ("--file", file)]
        return run(["docker", "compose", *project, *files, *arguments], limit_s=limit_s, environment=self.variables, shown=shown)

    def containers(self, service: str, *, running: bool = True) -> list[str]:
        """Give the ids of a service's containers."""
        return self.compose("--profile", "*", "ps", "--quiet", *([] if running else ["--all"]), service).split()

    def as_started(self) -> "Deployment":
        """Give it with the files that it was started with, an override for GPUs among them.

        :raises EngineError: its nginx does not run.
        """
        found = self.containers("nginx")
        if not found:
            raise EngineError("Nothing runs: docker compose up --detach --wait starts it.")
        said = str(self.inspect(found[0])["Config"]["Labels"]["com.docker.compose.project.config_files"])
        return replace(self, files=tuple(said.split(",")))

    def execute(self, container: str, *command: str, limit_s: float = _SOON_S) -> str:
        """Run a command in a container and give what it printed."""
        return run(["docker", "exec", container, *command], limit_s=limit_s)

    def manage(self, command: str, container: str, *, limit_s: float = _SOON_S) -> str:
        """Let the engine do something to a container: ``stop`` (in its own time), ``rm``, ``pause``, ``logs``..."""
        return run(["docker", command, container], limit_s=limit_s)

    def inspect(self, thing: str) -> dict[str, Any]:
        """Give what the engine knows of a container or an image."""
        (found,) = json.loads(run(["docker", "inspect", thing]))
        known: dict[str, Any] = found
        return known
