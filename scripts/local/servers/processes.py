"""Wait for the process of a server."""

import socket
import time
from typing import Final

import psutil

from scripts.local.servers.errors import Unusable
from scripts.local.servers.ports import LOOPBACK

_PROBE_S: Final = 1.0


def find(pid: int, name: str) -> psutil.Process:
    """Return the process with this pid.

    :raises Unusable: when there is none.
    """
    try:
        return psutil.Process(pid)
    except psutil.NoSuchProcess as error:
        raise _ended(name) from error


def pause(process: psutil.Process, name: str) -> None:
    """Wait a moment for a process that is starting.

    :raises Unusable: when the process ended.
    """
    time.sleep(0.05)  # poll, because a starting server sends no notification
    # Checking that the pid exists is not enough. After the process has ended, it is a zombie until its parent reads its
    # exit status, and then another process may get the same pid.
    try:
        has_ended = not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess as error:
        raise _ended(name) from error
    if has_ended:
        raise _ended(name)


def wait_until_listening(process: psutil.Process, port: int, name: str) -> None:
    """Wait until a process listens on a port. There is no time limit while it runs.

    Nothing is sent to the port before, because another program there, perhaps of another user, must not receive a
    password.

    :raises Unusable: when the process ended, or another program listens on the port.
    """
    while not _listens(process, port, name):
        # A program answers that is not the process, unless the process has begun to listen meanwhile.
        if _is_taken(port) and not _listens(process, port, name):
            raise Unusable(f"Port {port} is in use by another program; stop that program.")
        pause(process, name)


def _listens(process: psutil.Process, port: int, name: str) -> bool:
    try:
        connections = process.net_connections("tcp4")
    except psutil.NoSuchProcess as error:
        raise _ended(name) from error
    except psutil.AccessDenied as error:
        raise Unusable(f"The connections of {name} cannot be listed, because its process belongs to another user.") from error
    return any(connection.status == psutil.CONN_LISTEN and connection.laddr.port == port for connection in connections)


def _is_taken(port: int) -> bool:
    try:
        socket.create_connection((LOOPBACK, port), _PROBE_S).close()
    except OSError:
        return False
    return True


def _ended(name: str) -> Unusable:
    return Unusable(f"{name} ended while starting; see its log.")
