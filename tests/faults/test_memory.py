"""A short run of valid and broken images through one worker. The long run is ``python -m tests.faults.memory``."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.settings import MIB
from tests.faults.memory import MemorySamples, Sample, mix_images, pool_children, run_images
from tests.support.service_stack import Stack, wait_until

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(1800)]
MAX_GROWTH = 1.15


@pytest.fixture(scope="module")
def own_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Run a worker that no other test uses, because its memory must not have grown already."""
    memory_stack = Stack(tmp_path_factory.mktemp("memory") / "data")
    try:
        memory_stack.start()
        yield memory_stack
    finally:
        memory_stack.stop()


def test_each_image_ends_as_expected_in_one_process_whose_memory_stops_growing(own_stack: Stack) -> None:
    memory, outcome = run_images(own_stack, mix_images(250, 1))
    assert outcome.wrong == []
    assert outcome.images == 250
    assert outcome.done >= 150
    assert {"truncated", "corrupt", "too_many_pixels"} <= outcome.failed.keys()
    for kind in ("pool child", "sandbox child", "parent"):
        assert memory.median(kind, 2 / 3, 1) <= MAX_GROWTH * memory.median(kind, 1 / 3, 2 / 3)


def test_a_pool_child_that_uses_too_much_memory_is_replaced_and_nothing_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORKER_MOST_MEMORY_BYTES", str(200 * MIB))  # every child uses more
    stack = Stack(tmp_path / "data")
    try:
        stack.start()
        first_children = pool_children(stack)
        _, first = run_images(stack, mix_images(60, 2))
        wait_until(lambda: bool(pool_children(stack) - first_children), 300, "a new pool child runs")
        _, second = run_images(stack, mix_images(60, 3))
    finally:
        stack.stop()
    for outcome in (first, second):
        assert [problem for problem in outcome.wrong if "the pool child was replaced" not in problem] == []
        assert outcome.images == 60


def test_a_leak_shows_in_the_figures() -> None:
    leaking = MemorySamples({"pool child": [Sample(number, 100_000 + 50 * number, 0) for number in range(10_001)]})
    assert leaking.median("pool child", 0.9, 1) / leaking.median("pool child", 0.1, 0.2) > 3
    assert leaking.slope("pool child") == pytest.approx(50)
