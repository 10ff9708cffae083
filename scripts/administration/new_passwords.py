"""Reads the password of a new user. A password is never a command-line argument, which other users of the machine can see."""

import sys
from typing import Final

import click

from scripts.administration.database import CommandFailed
from shared.accounts import passwords

_MAX_BYTES: Final = 8192


def is_terminal() -> bool:
    """Return whether somebody can be asked for a password."""
    return sys.stdin.isatty()


def ask(*names: str | None) -> str:
    """Ask for a password twice, until it is acceptable.

    :param names: names that the password must not be.
    """
    while True:
        password: str = click.prompt("Password", hide_input=True, confirmation_prompt="Repeat the password", err=True)
        fault = passwords.find_fault(password, *filter(None, names))
        if fault is None:
            return password
        click.echo(f"error: {fault}", err=True)


def read_line(*names: str | None) -> str:
    """Return the password in the first line of standard input.

    :param names: names that the password must not be.
    :raises CommandFailed: when it is not acceptable.
    """
    line = sys.stdin.buffer.readline(_MAX_BYTES)
    password = line.removesuffix(b"\n").removesuffix(b"\r").decode(errors="surrogateescape")  # surrogates are not acceptable
    fault = passwords.find_fault(password, *filter(None, names))
    if fault is not None:
        raise CommandFailed(fault)
    return password
