"""How much a benchmark measures: everything, less (``--quick``), or next to nothing (``--smoke``)."""

import argparse
from enum import Enum
from typing import TypeVar

T = TypeVar("T")


class Extent(Enum):
    """The extent of a run. The figures of a smoke run mean nothing; it only shows that the benchmark works."""

    FULL = "full"
    QUICK = "quick"
    SMOKE = "smoke"

    def choose(self, *, full: T, quick: T, smoke: T) -> T:
        """Return the value for this extent."""
        return {Extent.FULL: full, Extent.QUICK: quick, Extent.SMOKE: smoke}[self]


def add_options(parser: argparse.ArgumentParser, *, quick: str) -> None:
    """Add ``--quick`` and ``--smoke``; the parsed arguments then have the attribute ``extent``.

    :param quick: the help text of ``--quick``.
    """
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "--quick", dest="extent", action="store_const", const=Extent.QUICK, default=Extent.FULL, help=quick
    )
    group.add_argument(
        "--smoke",
        dest="extent",
        action="store_const",
        const=Extent.SMOKE,
        default=Extent.FULL,
        help="only check that the benchmark works; this takes seconds, the figures mean nothing, and no target is judged",
    )
