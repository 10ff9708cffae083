"""Measure the processing of images: the network alone, the whole processing, the service, and other model servers.

On a machine with little more than torch, run ``python -m scripts.bench.vision_cli --only cuda``. The exit code is 0 if
every target is met and 1 if a target is missed.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Final

from scripts.bench.extent import Extent, add_options
from scripts.bench.report import Report, Row

_MEASURES: Final = {
    "network": ("vision_rates", "measure_network"), "whole": ("vision_rates", "measure_whole"), "memory": ("vision_rates", "measure_memory"),
    "service": ("service_rate", "measure"), "serving": ("model_server_rates", "measure"), "cuda": ("cuda_rates", "measure"),
}  # fmt: skip
"""The module and the function that measure each part."""
HEADINGS: Final = {
    "network": "Detection alone, 8 images at once, one thread",
    "whole": "Whole processing of a JPEG of 1280x960, one core",
    "memory": "Memory of a worker",
    "service": "The service against a bare loop, two workers",
    "serving": "Served by HTTP, two cores",
    "cuda": "On the GPU, with all cores",
}


def main() -> int:
    """Run the benchmark; return the exit code."""
    parser = argparse.ArgumentParser(prog="scripts/bench/vision", description=__doc__)
    add_options(parser, quick="run fewer rounds; this takes a few minutes and is less accurate")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows to this file as JSON")
    parser.add_argument("--only", choices=HEADINGS, action="append", help="measure only this part (can be repeated)")
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"  # one thread, as in a worker; must be set before torch is imported
    if args.only and "cuda" in args.only and not _has_gpu():
        parser.error("torch finds no usable GPU; --only cuda needs one")
    report = Report("scripts/bench/vision", args.extent)
    with tempfile.TemporaryDirectory(prefix="shelfsight-bench-") as name:
        for part in args.only or [part for part in HEADINGS if _is_measured(part, args.extent)]:
            report.add_part(HEADINGS[part], partial(_measure, part, Path(name), args.extent))
    return report.finish(args.json)


def _is_measured(part: str, extent: Extent) -> bool:
    """Return whether a part is measured if the user names no parts.

    A smoke run leaves out ``serving``, because without the other model servers this part repeats the part ``service``.
    """
    if part == "serving":
        return extent is not Extent.SMOKE
    return part != "cuda" or _has_gpu()


def _has_gpu() -> bool:
    import torch  # noqa: PLC0415 -- must be imported after OMP_NUM_THREADS is set

    return torch.cuda.is_available()


def _measure(part: str, folder: Path, extent: Extent) -> list[Row]:
    """Measure one part of the benchmark, and return its rows.

    Only the module of this part is imported, because a machine with a GPU may lack packages that other parts need.
    """
    module, function = _MEASURES[part]
    measure: Callable[..., list[Row]] = getattr(import_module(f"scripts.bench.{module}"), function)
    return measure(*((folder,) if part in {"service", "serving"} else ()), extent=extent)


if __name__ == "__main__":
    sys.exit(main())
