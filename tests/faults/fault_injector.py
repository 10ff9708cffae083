"""What goes wrong, in which order: drawn from a seed, counted as it happens."""

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

# How often each kind of process is drawn. A supervisor takes everything with it and costs half a minute of work.
_KILL_WEIGHTS: Final = {
    "web": 3,
    "web child": 5,
    "worker": 3,
    "worker child": 6,
    "helper": 3,
    "sweep": 4,
    "supervisor": 1,
}
_FAILPOINT_SHARE: Final = 0.35
_OUTAGE_S: Final = 3.0
_KILLS_PER_REQUIRED_HIT: Final = 100
"""Of so many kills, at least one is to come at each point and to each kind of process."""


@dataclass(frozen=True, slots=True)
class FaultCounts:
    """How much is to go wrong: SIGKILLs of our own processes, and what befalls the servers and the disk."""

    kills: int
    flushes: int
    mongo_kills: int
    redis_others: int
    disk_fills: int


class FaultInjector:
    """Does harm to a stack."""

    def __init__(self, stack: FaultStack, seed: int) -> None:
        """Take the stack and the seed of all choices."""
        self._stack, self._source = stack, random.Random(seed)
        self.tally: Counter[str] = Counter()

    def kills(self) -> int:
        """Count the SIGKILLs that reached our own processes."""
        return sum(number for what, number in self.tally.items() if what.startswith("kill ")) + len(
            self._stack.plan.killed()
        )

    def run(self, wanted: FaultCounts, pause_s: float, limit_s: float) -> float:
        """Go on until all that is wanted has happened.

        :param pause_s: seconds between two faults, on average.
        :param limit_s: give up after so long; what is missing shows in the tally.
        :returns: moment of the last fault, by ``time.monotonic``.
        """
        until = time.monotonic() + limit_s
        specials = self._specials(wanted)
        every = max(1, wanted.kills // (len(specials) + 1))
        waiting = list(specials)
        self._source.shuffle(waiting)
        step = 0
        while time.monotonic() < until and (waiting or self.kills() < wanted.kills):
            step += 1
            if waiting and (step % (every + 1) == 0 or self.kills() >= wanted.kills):
                name, act = waiting.pop()
                if act():
                    self.tally[name] += 1
                elif name != "disk full":  # its process is just coming back: once more later
                    waiting.insert(0, (name, act))
            else:
                self._kill_something()
            time.sleep(pause_s * self._source.uniform(0.2, 1.8))
        self._stack.plan.disarm()
        return time.monotonic()

    def missing(self, wanted: FaultCounts) -> dict[str, int]:
        """Give what was wanted and did not happen. A disk that cannot be filled here is not missing, but shows in the tally."""
        least = {
            "redis flushed": wanted.flushes,
            "mongod killed": wanted.mongo_kills,
            "redis frozen": wanted.redis_others,
            "redis killed": wanted.redis_others,
            "redis full": wanted.redis_others,
            "disk full": wanted.disk_fills if self._stack.mounted else 0,
        }
        short = {name: number - self.tally[name] for name, number in least.items() if self.tally[name] < number}
        if self.kills() < wanted.kills:
            short["kills"] = wanted.kills - self.kills()
        each = wanted.kills // _KILLS_PER_REQUIRED_HIT
        reached = Counter(self._stack.plan.killed())
        short |= {f"at {point}": each - reached[point] for point in FAILPOINTS if reached[point] < each}
        done = {kind: self.tally[f"kill {kind}"] for kind in _KILL_WEIGHTS}
        return short | {f"kills of {kind}": each - number for kind, number in done.items() if number < each}

    def _kill_something(self) -> None:
        if self._source.random() < _FAILPOINT_SHARE and not self._stack.plan.armed():
            # The point that was reached least: else nobody would live to see the late ones. Counted where it happens.
            reached = Counter(self._stack.plan.killed())
            self._stack.plan.kill_at(min(FAILPOINTS, key=lambda point: (reached[point], self._source.random())))
            return
        kind = self._source.choices(list(_KILL_WEIGHTS), list(_KILL_WEIGHTS.values()))[0]
        if self._stack.kill(kind, self._source.randrange(100)):
            self.tally[f"kill {kind}"] += 1

    def _specials(self, wanted: FaultCounts) -> list[tuple[str, Callable[[], bool]]]:
        stack = self._stack
        made: list[tuple[str, Callable[[], bool]]] = []
        made += [("redis flushed", lambda: self._redis(lambda one: one.flushall()))] * wanted.flushes
        made += [("mongod killed", lambda: stack.kill("mongod"))] * wanted.mongo_kills
        made += [("redis frozen", lambda: stack.freeze("redis-server", _OUTAGE_S))] * wanted.redis_others
        made += [("redis killed", lambda: stack.kill("redis-server"))] * wanted.redis_others
        made += [("redis full", self._fill_redis)] * wanted.redis_others
        made += [("disk full", lambda: stack.fill_disk(_OUTAGE_S))] * wanted.disk_fills
        return made

    def _fill_redis(self) -> bool:
        if not self._redis(lambda one: one.config_set("maxmemory", 1)):
            return False
        time.sleep(_OUTAGE_S)
        return self._redis(lambda one: one.config_set("maxmemory", 256 * 1024 * 1024))

    def _redis(self, act: Callable[["redis.Redis"], Any]) -> bool:
        """Do something to Redis, which may be coming back right now."""
        for _ in self._tries():
            with suppress(redis.RedisError):
                with self._stack.redis() as client:
                    act(client)
                return True
        return False

    @staticmethod
    def _tries() -> Iterator[int]:
        for number in range(20):
            yield number
            time.sleep(0.5)
