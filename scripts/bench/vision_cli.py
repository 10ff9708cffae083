"""Measure what the workers do to a picture: the network, the whole work, the service beside a bare loop, other servers.

Exit code 0 when every target is met, 1 when one is missed.
"""

import argparse
import os
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Final

from scripts.bench.report import Report, Row

HEADINGS: Final = {
    "network": "Detection alone, 8 pictures at once, one thread",
    "whole": "Whole work on a JPEG of 1280x960, one core",
    "memory": "Memory of a worker",
    "service": "The service beside a bare loop, two workers",
    "serving": "Served by HTTP, two cores",
    "cuda": "On the GPU, with all cores",
}


def main() -> int:
    """Run the bench; give the exit code."""
    parser = argparse.ArgumentParser(prog="scripts/bench/vision", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds: a few minutes, rougher figures")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there as well")
    parser.add_argument("--only", choices=HEADINGS, action="append", help="measure this part only (may be given again)")
    given = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported: one thread, as in a worker
    report = Report("scripts/bench/vision")
    with tempfile.TemporaryDirectory(prefix="shelfsight-bench-") as name:
        for part in given.only or _usual():
            report.part(HEADINGS[part], partial(_measure, part, Path(name), quick=given.quick))
    return report.end(given.json)


def _usual() -> list[str]:
    import torch  # noqa: PLC0415 -- after OMP_NUM_THREADS is set

    return [part for part in HEADINGS if part != "cuda" or torch.cuda.is_available()]


def _measure(part: str, folder: Path, *, quick: bool) -> list[Row]:
    """Measure a part. What it imports it needs alone: a GPU machine may have torch and little more."""
    if part == "cuda":
        from scripts.bench import seeing_cuda  # noqa: PLC0415 -- as it says

        return seeing_cuda.measure(quick=quick)
    if part == "service":
        from scripts.bench import service  # noqa: PLC0415 -- as it says

        return service.measure(folder, quick=quick)
    if part == "serving":
        from scripts.bench import serving  # noqa: PLC0415 -- as it says

        return serving.measure(folder, quick=quick)
    from scripts.bench import seeing  # noqa: PLC0415 -- as it says

    measures = {"network": seeing.network, "whole": seeing.whole, "memory": seeing.memory}
    return measures[part](quick=quick)


if __name__ == "__main__":
    sys.exit(main())
