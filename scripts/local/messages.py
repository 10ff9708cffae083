"""The parts of messages that depend on paths: commands that can be pasted into a shell."""

import shlex
import sys
from io import TextIOWrapper
from pathlib import Path

from scripts.local.installation import DEFAULT_DATA


def command(script: str, data: Path) -> str:
    """Return the command that calls a script for a data folder, quoted for a shell."""
    return f"scripts/{script}" if data == DEFAULT_DATA else f"scripts/{script} --data {shlex.quote(str(data))}"


def print_any_text() -> None:
    """Print characters that the encoding of the terminal lacks as escapes, instead of raising an error."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
