"""What ``scripts/admin`` prints about users and keys."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scripts.administration.output import print_columns, print_json_lists

_ELEMENTS = st.lists(st.fixed_dictionaries({"name": st.text(), "email": st.none() | st.text()}), max_size=3)


@given(_ELEMENTS, _ELEMENTS)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])  # each example reads all output
def test_lists_are_printed_as_one_json_object(capsys: pytest.CaptureFixture[str], users: list[Any], keys: list[Any]) -> None:
    print_json_lists({"users": iter(users), "api_keys": iter(keys)})
    assert json.loads(capsys.readouterr().out) == {"users": users, "api_keys": keys}


def test_a_name_cannot_begin_a_line_or_command_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    print_columns("a\nb", "\x9b2J", "", "\u202ec")
    assert capsys.readouterr().out == "a b   2J   c\n"
