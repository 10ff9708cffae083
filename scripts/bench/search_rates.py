"""Measure how long lists of images take, with each filter, each pair of filters and each order, beside plain queries."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Final

from scripts.bench import search_filters
from scripts.bench.report import Row, Target, compare
from scripts.bench.search_filters import ALL, Filter
from scripts.bench.search_lists import QueryTooSlow
from scripts.bench.search_pages import Pages
from scripts.bench.timing import interleave, median
from shared.catalog.image_orders import DEFAULT_ORDER, ORDERS

_SINGLE_AT_MOST: Final = 2.0
_PAIR_AT_MOST: Final = 3.0
_FLAT_AT_MOST: Final = 1.5
_SLOW_MS: Final = 100.0
_SAMPLE: Final = 2000
_LONG_S: Final = 1.0
"""A pair that takes longer is measured once."""


def measure_single(pages: Pages, filters: Iterable[Filter], *, rounds: int) -> list[Row]:
    """Compare page 1 with each filter, by cursor and with its total, with plain queries."""
    rows: list[Row] = []
    for chosen in [ALL, *filters]:
        pages.check(chosen)
        subjects = {
            "cursor": partial(pages.after, chosen.parameters),
            "plain": partial(pages.plain, chosen),
            "page": partial(pages.with_total, chosen.parameters),
            "plain page": partial(pages.plain, chosen, counts=True),
        }
        cursor, plain, page, plain_page = _medians_ms(subjects, rounds)
        rows += [
            compare(f"{chosen.name}: by cursor", cursor, "ms", plain, at_most=_SINGLE_AT_MOST),
            compare(f"{chosen.name}: with total", page, "ms", plain_page, at_most=_SINGLE_AT_MOST),
        ]
    return rows


def measure_sorts(pages: Pages, filters: Iterable[Filter], *, rounds: int) -> list[Row]:
    """Compare page 1 in each order, without a filter and with some filters, with plain queries."""
    rows: list[Row] = []
    for sort in ORDERS:
        for chosen in [ALL, *filters]:
            pages.check(chosen, sort)
            subjects = {
                "ours": partial(pages.after, chosen.parameters | {"sort": sort}),
                "plain": partial(pages.plain, chosen, sort),
            }
            ours, plain = _medians_ms(subjects, rounds)
            rows.append(compare(f"sort={sort}, {chosen.name}", ours, "ms", plain, at_most=_SINGLE_AT_MOST))
    return rows


def measure_depth(pages: Pages, filters: Iterable[Filter], *, depth: float, rounds: int) -> list[Row]:
    """Compare a page far from the first one with page 1: with each filter, and in each order without a filter.

    Filters that choose less than a page behind there are left out.

    :param depth: the page follows this share of all images, from 0 to 1.
    """
    lists = [(chosen, DEFAULT_ORDER) for chosen in [ALL, *filters]]
    lists += [(ALL, sort) for sort in ORDERS if sort != DEFAULT_ORDER]
    sample = list(pages.lists.db.images.aggregate([{"$sample": {"size": _SAMPLE}}]))
    rows = []
    for chosen, sort in lists:
        cursor = pages.deep_cursor(chosen, sort, sample, depth)
        if cursor is not None:
            get = partial(pages.after, chosen.parameters | {"sort": sort})
            near, far = _medians_ms({"near": get, "far": partial(get, cursor)}, rounds)
            name = chosen.name if sort == DEFAULT_ORDER else f"sort={sort}"
            rows.append(compare(f"{name}: deep beside page 1", far, "ms", near, at_most=_FLAT_AT_MOST))
    return rows


def measure_pairs(pages: Pages, filters: Sequence[Filter], *, rounds: int, log: Callable[[str], None]) -> list[Row]:
    """Compare page 1 by cursor with each pair of filters with plain queries.

    A pair whose query the service ends has a row with the milliseconds until then, and no baseline.

    :param log: function that is called with the names of pairs whose queries the service ends.
    """
    rows: list[Row] = []
    for pair in search_filters.pairs(filters):
        started = time.perf_counter()
        try:
            pages.check(pair)
            is_long = time.perf_counter() - started > _LONG_S
            subjects = {"ours": partial(pages.after, pair.parameters), "plain": partial(pages.plain, pair)}
            ours, plain = _medians_ms(subjects, 1 if is_long else rounds, warmups=0 if is_long else 1)
        except QueryTooSlow:
            log(f"query_too_slow: {pair.name}")
            rows.append(Row(f"{pair.name}: query_too_slow", 1000 * (time.perf_counter() - started), "ms"))
        else:
            rows.append(compare(pair.name, ours, "ms", plain, at_most=_PAIR_AT_MOST))
    return rows


def summarize_pairs(rows: Sequence[Row]) -> list[Row]:
    """Return how many of the pairs that ``measure_pairs`` has measured are slow."""
    answered = [row for row in rows if row.ratio is not None]
    within = sum(row.ratio <= _PAIR_AT_MOST for row in answered if row.ratio is not None)
    return [
        Row(f"of {len(rows)} pairs, within {_PAIR_AT_MOST:g} times a plain query", within, "pairs"),
        Row(f"of {len(rows)} pairs, more than {_SLOW_MS:.0f} ms", sum(row.value > _SLOW_MS for row in rows), "pairs"),
        Row(f"of {len(rows)} pairs, query_too_slow", len(rows) - len(answered), "pairs", target=Target(at_most=0)),
        Row("slowest pair", max(row.value for row in rows), "ms"),
    ]


def _medians_ms(subjects: Mapping[str, Callable[[], float]], rounds: int, *, warmups: int = 2) -> list[float]:
    """Return the median milliseconds of each subject."""
    times = interleave(subjects, rounds, warmups=warmups)
    return [1000 * median(times[name]) for name in subjects]
