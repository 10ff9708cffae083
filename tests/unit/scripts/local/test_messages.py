"""Printed commands can be pasted into a shell."""

import shlex
from pathlib import Path

import pytest

from scripts.local import messages
from scripts.local.installation import DEFAULT_DATA


@pytest.mark.parametrize(
    "path", ["/srv/data", "/a b/'c' \"d\"", "/x;rm -rf y", "/$HOME`id`", "/Läden 😀", "/a\\b", "/~", "/#x %y"]
)
def test_a_command_for_a_folder_is_quoted(path: str) -> None:
    assert shlex.split(messages.command("stop", Path(path))) == ["scripts/stop", "--data", path]


def test_the_default_folder_needs_no_option() -> None:
    assert messages.command("status", DEFAULT_DATA) == "scripts/status"
