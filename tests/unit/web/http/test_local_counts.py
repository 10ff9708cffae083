"""Counts in the memory of a process: as many as are permitted, and the latest ones."""

from concurrent.futures import ThreadPoolExecutor

from web.http.local_counts import LocalCounts


def test_no_more_keys_than_permitted_are_kept_and_the_latest_stay() -> None:
    counts = LocalCounts(3)
    for number in range(50):
        assert counts.incr("used", 60) == number + 1
        counts.incr(f"key {number}", 60)
        assert len(counts) <= 3
    assert [counts.get(key) for key in ("used", "key 49", "key 48", "key 47")] == [50, 1, 1, 0]


def test_a_count_is_never_below_zero() -> None:
    counts = LocalCounts(1)
    counts.incr("a", 60)
    counts.incr("b", 60)
    assert counts.incr("a", 60, -1) == 0


def test_a_cleared_count_is_zero() -> None:
    counts = LocalCounts(2)
    counts.incr("a", 60, 7)
    counts.clear("a")
    counts.clear("b")
    assert (counts.get("a"), counts.incr("a", 60), len(counts)) == (0, 1, 1)


def test_threads_count_together() -> None:
    counts = LocalCounts(1)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: counts.incr("a", 60), range(4000)))
    assert counts.get("a") == 4000
