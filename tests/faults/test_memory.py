"""A short run of good and broken pictures through one worker. The long one: ``python -m tests.faults.memory``."""

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
    """A worker that nothing else has used: it must not have grown already."""
    made = Stack(tmp_path_factory.mktemp("memory") / "data")
    try:
        made.start()
        yield made
    finally:
        made.stop()


def test_each_picture_ends_as_it_should_in_one_process_whose_memory_settles(own_stack: Stack) -> None:
    memory, outcome = run_images(own_stack, mix_images(250, 1))
    assert outcome.wrong == []
    assert outcome.pictures == 250
    assert outcome.done >= 150
    assert {"truncated", "corrupt", "too_many_pixels"} <= outcome.failed.keys()
    for kind in ("pool child", "helper", "parent"):
        assert memory.median(kind, 2 / 3, 1) <= MAX_GROWTH * memory.median(kind, 1 / 3, 2 / 3)


def test_a_pool_child_that_grew_too_large_is_replaced_and_nothing_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORKER_MOST_MEMORY_BYTES", str(200 * MIB))  # every child is larger
    stack = Stack(tmp_path / "data")
    try:
        stack.start()
        begun = pool_children(stack)
        _, first = run_images(stack, mix_images(60, 2))
        wait_until(lambda: bool(pool_children(stack) - begun), 300, "another pool child")
        _, second = run_images(stack, mix_images(60, 3))
    finally:
        stack.stop()
    for outcome in (first, second):
        assert [one for one in outcome.wrong if "the pool child was replaced" not in one] == []
        assert outcome.pictures == 60


def test_a_leak_would_show_in_the_figures() -> None:
    leaking = MemorySamples({"pool child": [Sample(number, 100_000 + 50 * number, 0) for number in range(10_001)]})
    assert leaking.median("pool child", 0.9, 1) / leaking.median("pool child", 0.1, 0.2) > 3
    assert leaking.slope("pool child") == pytest.approx(50)
