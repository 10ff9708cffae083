"""Helpers for the tests of ``scripts/upload`` as a program."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from scripts.local.installation import ROOT
from tests.unit.scripts.client.scripted_service import PATIENCE_S, ScriptedService


class Client:
    """One run of the command in its own process, in the parent of the images' folder."""

    def __init__(self, service: ScriptedService, source: Path, *arguments: str) -> None:
        command = [sys.executable, "-m", "scripts.client.main", str(source), "--url", service.url, "--json", "--quiet", "--batch-size", "2", *arguments]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        self._process = subprocess.Popen(command, cwd=source.parent, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def signal(self, signum: signal.Signals) -> None:
        self._process.send_signal(signum)

    def read_line(self) -> str:
        assert self._process.stderr is not None
        return self._process.stderr.readline()

    def end(self) -> tuple[int, dict[str, Any], str]:
        """Return exit code, summary, and the text on standard error."""
        out, err = self._process.communicate(timeout=PATIENCE_S)
        return self._process.returncode, json.loads(out or "{}"), err


def upload(service: ScriptedService, source: Path, *arguments: str) -> tuple[int, dict[str, Any], str]:
    return Client(service, source, *arguments).end()


def resume_files(folder: Path) -> list[Path]:
    return list(folder.parent.glob("*.upload.jsonl"))


def kill_after_two_groups(service: ScriptedService, folder: Path) -> None:
    """Kill a client after the service accepted two groups, before it answers."""
    service.answering.clear()
    first = Client(service, folder)
    service.wait_for(2)
    first.signal(signal.SIGKILL)
    first.end()
    service.answering.set()
