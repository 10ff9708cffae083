"""``scripts/upload --watch`` as a command: its state file, its messages, and its exit code."""

import argparse
import json
import signal
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from scripts.client.files import DEFAULTS
from scripts.client.groups import UsageError, parse_timestamp
from scripts.client.interrupts import handle_interrupts
from scripts.client.send_group import GaveUp, Sender
from scripts.client.summary import INTERRUPTED, REJECTED, counted, escape
from scripts.client.uploader import body_limits
from scripts.client.watching.state import NEED_ATTENTION, State
from scripts.client.watching.watcher import Options, Watcher

WATCH_RETRY_S: Final = 20.0
"""Seconds for which a request is retried before the user is told that the service is away. It is sent again later."""
_CONNECT_S: Final = 5.0
_MAX_SHOWN: Final = 20


def watch(arguments: argparse.Namespace, sender: Sender, stop: threading.Event, console: Console) -> int:
    """Watch a folder until Ctrl-C or SIGTERM, and say what is left.

    :returns: the exit code.
    :raises UsageError: when the folder does not exist, or the state file cannot be used.
    :raises AlreadyRunning: when another process watches the folder with the same state file.
    """
    folder = arguments.watch.absolute()
    if not folder.is_dir():
        raise UsageError(f"{arguments.watch} does not exist, or is no folder.")
    fields = _fields(arguments)
    owner = {"folder": str(folder), "url": arguments.url.rstrip("/"), "metadata": json.dumps(fields, sort_keys=True)}
    say = partial(_say, console, quiet=arguments.quiet)
    running: list[Watcher] = []
    with _reported_errors(arguments.resume), State(arguments.resume, owner) as state:
        with handle_interrupts(stop, console, lambda: sum(watcher.in_flight for watcher in running), _last_words, (signal.SIGINT, signal.SIGTERM)):
            limits = _connect(sender, stop, say)
            if limits is not None:
                max_images, max_bytes = body_limits(limits, arguments.batch_size, arguments.batch_bytes)
                options = Options(folder, fields, arguments.settle, arguments.delete, arguments.parallel, max_images, max_bytes, limits["max_image_bytes"])
                running.append(Watcher(options, sender, state, stop, say))
                running[0].run()
        return _end(state, running, arguments, console)


@contextmanager
def _reported_errors(path: Path) -> Iterator[None]:
    """Raise ``UsageError`` if the state file cannot be read or written any more, for example because the disk is full."""
    try:
        yield
    except sqlite3.Error as error:
        raise UsageError(f"{path} cannot be read or written: {error}. After the cause is removed, the same command continues.") from error


def _fields(arguments: argparse.Namespace) -> dict[str, Any]:
    given = {
        "store_name": arguments.store,
        "camera_id": arguments.camera,
        "timestamp": parse_timestamp(arguments.timestamp) if arguments.timestamp else None,
    }
    return DEFAULTS | {name: value for name, value in given.items() if value is not None}


def _connect(sender: Sender, stop: threading.Event, say: Callable[[str], None]) -> dict[str, int] | None:
    """Return the limits of the service as soon as it responds; None if ``stop`` is set before."""
    shown = ""
    while not stop.is_set():
        try:
            return sender.fetch_limits()
        except GaveUp as error:
            if str(error) != shown and not stop.is_set():
                shown = str(error)
                say(f"{shown}. Trying again until it responds; press Ctrl-C to end.")
            stop.wait(_CONNECT_S)
    return None


def _end(state: State, running: list[Watcher], arguments: argparse.Namespace, console: Console) -> int:
    counts = state.count()
    attention = {name: counts[name] for name in NEED_ATTENTION if counts.get(name)}
    left = {"not uploaded": sum(watcher.not_uploaded for watcher in running), "without a response": counts.get("sending", 0), "without a result": counts.get("sent", 0)}
    if arguments.delete:
        left["not removed"] = counts.get("done", 0)
    uploaded, removed = (sum(getattr(watcher, name) for watcher in running) for name in ("uploaded", "removed"))
    console.print(f"Ended: {counted(uploaded, 'image was', 'images were')} uploaded and {counted(removed, 'file', 'files')} removed since the start.", markup=False, soft_wrap=True)
    for name, number in attention.items():
        for file in state.list_some(name, _MAX_SHOWN):
            console.print(escape(f"{name}  {file.path}: {file.detail}"), style="red", markup=False, soft_wrap=True)
        if number > _MAX_SHOWN:
            console.print(f"... and {number - _MAX_SHOWN} more that are {name}", style="red")
    remaining = ", ".join(f"{number} {name}" for name, number in left.items() if number)
    console.print(f"Left: {remaining}. The same command continues." if remaining else "Nothing is left.", markup=False, soft_wrap=True)
    code = INTERRUPTED if remaining or not running else REJECTED if attention else 0
    if arguments.json:
        print(json.dumps({"uploaded": uploaded, "removed": removed, "left": left, "states": counts, "exit_code": code}))
    return code


def _last_words() -> str:
    return " The same command continues."


def _say(console: Console, text: str, *, quiet: bool) -> None:
    if not quiet or not text.startswith("uploaded "):
        console.print(escape(text), markup=False, soft_wrap=True)

