"""Inject faults in an order drawn from a seed, and count them."""

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import redis

from tests.faults.fault_plan import FAILPOINTS
from tests.faults.services import FaultStack

# Weights with which the kinds of processes are drawn. A killed supervisor ends all its processes, which costs half a minute of work.
_KILL_WEIGHTS: Final = {
    "web": 3,
    "web child": 5,
    "worker": 3,
    "worker child": 6,
    "sandbox child": 3,
    "sweep": 4,
    "supervisor": 1,
}
_FAILPOINT_SHARE: Final = 0.35
_OUTAGE_S: Final = 3.0
_KILLS_PER_REQUIRED_HIT: Final = 100
"""At least one kill in this many must happen at each failpoint and to each kind of process."""


@dataclass(frozen=True, slots=True)
class FaultCounts:
    """How many faults to inject: SIGKILLs of our own processes, and faults of the servers and the disk.

    ``mongo_kills`` is the number of each of the faults that the stack has for MongoDB.
    """

    kills: int
    flushes: int
    mongo_kills: int
    redis_outages: int
    disk_fills: int


class FaultInjector:
    """Injects faults into a stack."""

    def __init__(self, stack: FaultStack, seed: int) -> None:
        """Inject into ``stack``; ``seed`` determines all random choices."""
        self._stack, self._random = stack, random.Random(seed)
        self.counts: Counter[str] = Counter()

    def kill_count(self) -> int:
        """Return the number of SIGKILLs that our own processes received."""
        return sum(number for fault, number in self.counts.items() if fault.startswith("kill ")) + len(
            self._stack.plan.killed()
        )

    def run(self, wanted: FaultCounts, pause_s: float, limit_s: float) -> float:
        """Inject faults until all that are wanted have happened.

        :param pause_s: average number of seconds between two faults.
        :param limit_s: stop after this many seconds; ``missing`` then returns the faults that did not happen.
        :returns: time of the last fault, by ``time.monotonic``.
        """
        deadline = time.monotonic() + limit_s
        server_faults = self._server_faults(wanted)
        kills_between = max(1, wanted.kills // (len(server_faults) + 1))
        pending = list(server_faults)
        self._random.shuffle(pending)
        step = 0
        while time.monotonic() < deadline and (pending or self.kill_count() < wanted.kills):
            step += 1
            if pending and (step % (kills_between + 1) == 0 or self.kill_count() >= wanted.kills):
                name, inject = pending.pop()
                if inject():
                    self.counts[name] += 1
                elif name != "disk full":  # the process is being restarted: retry later
                    pending.insert(0, (name, inject))
            else:
                self._inject_kill()
            time.sleep(pause_s * self._random.uniform(0.2, 1.8))
        self._stack.plan.disarm()
        return time.monotonic()

    def missing(self, wanted: FaultCounts) -> dict[str, int]:
        """Return the wanted faults that did not happen, with their numbers. A disk that cannot be filled here does not count."""
        required = {
            "redis flushed": wanted.flushes,
            **dict.fromkeys(self._stack.mongodb_faults(), wanted.mongo_kills),
            "redis frozen": wanted.redis_outages,
            "redis killed": wanted.redis_outages,
            "redis full": wanted.redis_outages,
            "disk full": wanted.disk_fills if self._stack.mounted else 0,
        }
        missing = {name: number - self.counts[name] for name, number in required.items() if self.counts[name] < number}
        if self.kill_count() < wanted.kills:
            missing["kills"] = wanted.kills - self.kill_count()
        minimum = wanted.kills // _KILLS_PER_REQUIRED_HIT
        reached = Counter(self._stack.plan.killed())
        missing |= {f"at {point}": minimum - reached[point] for point in FAILPOINTS if reached[point] < minimum}
        killed = {kind: self.counts[f"kill {kind}"] for kind in _KILL_WEIGHTS}
        return missing | {f"kills of {kind}": minimum - number for kind, number in killed.items() if number < minimum}

    def _inject_kill(self) -> None:
        if self._random.random() < _FAILPOINT_SHARE and not self._stack.plan.armed():
            # Choose the failpoint that was reached least often: otherwise no process lives long enough to reach the late ones.
            # The process that dies there records the kill.
            reached = Counter(self._stack.plan.killed())
            self._stack.plan.kill_at(min(FAILPOINTS, key=lambda point: (reached[point], self._random.random())))
            return
        kind = self._random.choices(list(_KILL_WEIGHTS), list(_KILL_WEIGHTS.values()))[0]
        if self._stack.kill(kind, self._random.randrange(100)):
            self.counts[f"kill {kind}"] += 1

    def _server_faults(self, wanted: FaultCounts) -> list[tuple[str, Callable[[], bool]]]:
        stack = self._stack
        faults: list[tuple[str, Callable[[], bool]]] = []
        faults += [("redis flushed", lambda: self._call_redis(lambda client: client.flushall()))] * wanted.flushes
        faults += list(stack.mongodb_faults().items()) * wanted.mongo_kills
        faults += [("redis frozen", lambda: stack.freeze("redis", _OUTAGE_S))] * wanted.redis_outages
        faults += [("redis killed", lambda: stack.kill("redis"))] * wanted.redis_outages
        faults += [("redis full", self._fill_redis)] * wanted.redis_outages
        faults += [("disk full", lambda: stack.fill_disk(_OUTAGE_S))] * wanted.disk_fills
        return faults

    def _fill_redis(self) -> bool:
        if not self._call_redis(lambda client: client.config_set("maxmemory", 1)):
            return False
        time.sleep(_OUTAGE_S)
        return self._call_redis(lambda client: client.config_set("maxmemory", 256 * 1024 * 1024))

    def _call_redis(self, call: Callable[["redis.Redis"], Any]) -> bool:
        """Call Redis, and retry while it is restarted. Return False when it does not respond."""
        for _ in self._attempts():
            with suppress(redis.RedisError):
                with self._stack.redis() as client:
                    call(client)
                return True
        return False

    @staticmethod
    def _attempts() -> Iterator[int]:
        for attempt in range(20):
            yield attempt
            time.sleep(0.5)
