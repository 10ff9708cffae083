"""When requests wait for a thread or for memory, a client address that holds more than its share loses the excess."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from web.http.slow_clients import ClientWait, SlowClients, Wait

THREADS = 16
FAST = 4_000_000
"""Bytes that have arrived within 11 seconds from a client that is not slow: more than 128 KB/s."""
SLOW = 700_000
Begin = Callable[..., list[ClientWait]]


@pytest.fixture
def clients() -> SlowClients:
    return SlowClients()


@pytest.fixture
def begin(clients: SlowClients) -> Iterator[Begin]:
    """Return a function that registers receipts of bodies which began some seconds ago, and of which bytes have arrived."""
    with ExitStack() as stack, socket.create_server(("127.0.0.1", 0)) as server:

        def begin(client: str, count: int, received: int, seconds: float = 11) -> list[ClientWait]:
            waits = []
            for _ in range(count):
                sender = stack.enter_context(socket.create_connection(server.getsockname()))
                receiver = stack.enter_context(server.accept()[0])
                waits.append(ClientWait(receiver, Wait.BODY, client))
                thread = threading.Thread(target=sender.sendall, args=(bytes(received),))
                thread.start()
                receiver.recv(received, socket.MSG_WAITALL)
                thread.join()
                waits[-1].began_at -= seconds
                stack.enter_context(clients.register(waits[-1]))
            return waits

        yield begin


def ended(waits: list[ClientWait]) -> int:
    return sum(wait.ended for wait in waits)


def test_one_client_cannot_hold_all_threads_whatever_its_rate(clients: SlowClients, begin: Begin) -> None:
    waits = begin("192.0.2.1", 16, FAST)
    assert clients.check(40, THREADS) == 8
    assert clients.check(40, THREADS) == 0  # the other eight are its share
    assert ended(waits) == 8


def test_no_client_is_ended_while_no_request_waits(clients: SlowClients, begin: Begin) -> None:
    waits = begin("192.0.2.1", 16, SLOW) + begin("192.0.2.2", 1, 0)
    assert (clients.check(0, THREADS), ended(waits)) == (0, 0)


def test_at_most_one_wait_is_ended_for_each_waiting_request_and_the_slowest_first(clients: SlowClients, begin: Begin) -> None:
    fast, slow = begin("192.0.2.1", 8, 3 * FAST), begin("192.0.2.1", 4, FAST)
    assert clients.check(2, THREADS) == 2
    assert (ended(fast), ended(slow)) == (0, 2)


def test_a_slow_client_keeps_its_place_while_another_holds_more_than_its_share(clients: SlowClients, begin: Begin) -> None:
    alone, many = begin("192.0.2.1", 1, SLOW), begin("192.0.2.2", 15, FAST)
    assert clients.check(40, THREADS) == 10  # of 16 threads, a third each for the two clients and for those that wait
    assert (ended(alone), ended(many)) == (0, 10)


def test_a_slow_client_loses_its_place_if_no_client_holds_more_than_its_share(clients: SlowClients, begin: Begin) -> None:
    slow, fast = begin("192.0.2.1", 1, SLOW), [begin(f"192.0.2.{number}", 1, FAST)[0] for number in range(2, 6)]
    assert clients.check(40, THREADS) == 1
    assert (ended(slow), ended(fast)) == (1, 0)


@pytest.mark.parametrize(("seconds", "number"), [(0, 0), (2, 0), (5, 8), (11, 8)])
def test_what_arrives_fast_has_ten_seconds(clients: SlowClients, begin: Begin, seconds: float, number: int) -> None:
    waits = begin("192.0.2.1", 16, FAST)
    for wait in waits:
        wait.began_at = time.monotonic() - seconds
    assert (clients.check(40, THREADS), ended(waits)) == (number, number)


def test_the_addresses_of_one_ipv6_network_are_one_client(clients: SlowClients, begin: Begin) -> None:
    waits = [begin(f"2001:db8::{number}", 1, FAST)[0] for number in range(1, 17)]
    assert (clients.check(40, THREADS), ended(waits)) == (8, 8)


def test_bodies_of_one_client_do_not_hold_the_memory_that_another_needs(clients: SlowClients, begin: Begin) -> None:
    waits = begin("192.0.2.1", 4, FAST)
    for _ in range(4):
        clients.end_slowest_body("192.0.2.1")  # its own bodies do not make room for more of them, or none would be completed
    assert ended(waits) == 0
    clients.end_slowest_body("192.0.2.2")
    assert ended(waits) == 1
    for _ in range(4):
        clients.end_slowest_body("192.0.2.2")
    assert ended(waits) == 3  # one body is the share of any client


def test_a_slow_body_makes_room_for_any_client(clients: SlowClients, begin: Begin) -> None:
    waits = begin("192.0.2.1", 1, SLOW) + begin("192.0.2.2", 1, FAST)
    clients.end_slowest_body("192.0.2.1")
    assert [wait.ended for wait in waits] == [True, False]
