"""Measure the cost of accepting images, and compare it with baselines.

The parts are the rate and the CPU time of uploads, the memory in Redis, the memory of the web process, the rate at which
spools are settled, the overhead of the queue, and the time until a worker claims an upload.

The exit code is 0 if every target is met and 1 if a target is missed.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from scripts.bench import queue_overhead, sample_uploads, settle_rates, upload_memory, upload_rates, wakeup_latency
from scripts.bench.extent import Extent, add_options
from scripts.bench.report import Report
from scripts.bench.servers import Servers

PARTS = ("rate", "redis", "memory", "settle", "overhead", "latency")
_IMAGES = 32
_SMOKE_IMAGES = 2


def main() -> int:
    """Run the benchmark; return the exit code."""
    parser = argparse.ArgumentParser(prog="scripts/bench/ingest", description=__doc__)
    add_options(parser, quick="run fewer rounds; this takes a minute or two and is less accurate")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows to this file as JSON")
    parser.add_argument("--only", choices=PARTS, action="append", help="measure only this part (can be repeated)")
    parser.add_argument(
        "--folder", type=Path, help="folder for the data; it must be on the disk to measure (default: the system's temporary folder)"
    )
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"  # one thread, as in a worker; must be set before torch is imported
    parts = args.only or PARTS
    report = Report("scripts/bench/ingest", args.extent)
    with tempfile.TemporaryDirectory(prefix="shelfsight-bench-", dir=args.folder) as name:
        count = args.extent.choose(full=_IMAGES, quick=_IMAGES, smoke=_SMOKE_IMAGES)
        report.log(f"drawing {count} images, starting servers ...")
        images = [sample_uploads.draw_jpeg(seed) for seed in range(count)]
        servers = Servers(Path(name))
        try:
            _measure(report, servers, images, parts, args.extent)
        finally:
            servers.stop()
    return report.finish(args.json)


def _measure(report: Report, servers: Servers, images: list[bytes], parts: Sequence[str], extent: Extent) -> None:
    upload, small = sample_uploads.json_upload(images), sample_uploads.json_upload(images[:1])
    body = f"{len(images)} images of about {sample_uploads.JPEG_BYTES // 1000} KB, body {upload.inflated / 1e6:.1f} MB"
    if "rate" in parts:
        rounds, requests = extent.choose(full=(15, 16), quick=(5, 8), smoke=(1, 4))
        report.add_part(
            f"Accepting {body}",
            lambda: upload_rates.measure(servers, upload, rounds=rounds, clients=(1, 4), requests=requests),
        )
    if "redis" in parts:
        batches = extent.choose(full=30, quick=10, smoke=1)
        report.add_part("Redis", lambda: upload_rates.redis_bytes(servers, upload, batches=batches))
    if "memory" in parts:
        cases = {
            "JSON, one": (upload, 1),
            "JSON, four together": (upload, 4),
            "JSON in gzip, one": (sample_uploads.gzip_upload(upload), 1),
            "multipart, one": (sample_uploads.multipart_upload(images), 1),
        }
        if extent is Extent.SMOKE:
            cases = {"JSON, four together": cases["JSON, four together"]}  # each case starts a web process of its own
        report.add_part("Memory of the web process", lambda: upload_memory.measure(servers, cases, small))
    if "settle" in parts:
        servers.reset()
        rounds = extent.choose(full=15, quick=5, smoke=1)
        report.add_part("Settling spools", lambda: settle_rates.measure(servers, images, rounds=rounds))
    if "overhead" in parts:
        servers.reset()
        rounds = extent.choose(full=9, quick=3, smoke=1)
        report.add_part("Wakeup and claim, relative to processing", lambda: queue_overhead.measure(servers, images, rounds=rounds))
    if "latency" in parts:
        servers.reset()  # also removes the batches of the previous part, which have no spool
        idle, outages = extent.choose(full=(15, 3), quick=(5, 1), smoke=(1, 1))
        report.add_part("From 202 to claimed", lambda: wakeup_latency.measure(servers, small, idle=idle, outages=outages))


if __name__ == "__main__":
    sys.exit(main())
