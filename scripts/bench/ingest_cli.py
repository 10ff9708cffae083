"""Measure what accepting images costs: rate, CPU, memory, Redis, the way to the worker. All against baselines in the same run.

Exit code 0 when every target is met, 1 when one is missed.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from scripts.bench import queue_overhead, sample_uploads, upload_memory, upload_rates, wakeup_latency
from scripts.bench.report import Report
from scripts.bench.servers import Servers

PARTS = ("rate", "redis", "memory", "overhead", "latency")
_IMAGES = 32


def main() -> int:
    """Run the bench; give the exit code."""
    parser = argparse.ArgumentParser(prog="scripts/bench/ingest", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds: a minute or two, rougher figures")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there as well")
    parser.add_argument("--only", choices=PARTS, action="append", help="measure this part only (may be given again)")
    parser.add_argument(
        "--folder", type=Path, help="put the data here, on the disk to be measured (default: the system's)"
    )
    given = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported: one thread, as in a worker
    parts = given.only or PARTS
    report = Report("scripts/bench/ingest")
    with tempfile.TemporaryDirectory(prefix="shelfsight-bench-", dir=given.folder) as name:
        report.say(f"drawing {_IMAGES} pictures, starting servers ...")
        images = [sample_uploads.jpeg(seed) for seed in range(_IMAGES)]
        servers = Servers(Path(name))
        try:
            _measure(report, servers, images, parts, quick=given.quick)
        finally:
            servers.stop()
    return report.end(given.json)


def _measure(report: Report, servers: Servers, images: list[bytes], parts: Sequence[str], *, quick: bool) -> None:
    upload, small = sample_uploads.upload(images), sample_uploads.upload(images[:1])
    body = f"{len(images)} images of about {sample_uploads.BYTES // 1000} KB, body {upload.inflated / 1e6:.1f} MB"
    if "rate" in parts:
        rounds, requests = (5, 8) if quick else (15, 16)
        report.part(
            f"Accepting {body}",
            lambda: upload_rates.measure(servers, upload, rounds=rounds, clients=(1, 4), requests=requests),
        )
    if "redis" in parts:
        report.part("Redis", lambda: upload_rates.redis_bytes(servers, upload, batches=10 if quick else 30))
    if "memory" in parts:
        cases = {
            "JSON, one": (upload, 1),
            "JSON, four together": (upload, 4),
            "JSON in gzip, one": (sample_uploads.gzipped(upload), 1),
            "multipart, one": (sample_uploads.multipart(images), 1),
        }
        report.part("Memory of the web process", lambda: upload_memory.measure(servers, cases, small))
    servers.forget_images()
    if "overhead" in parts:
        rounds = 3 if quick else 9
        report.part("Bell and claim beside looking", lambda: queue_overhead.measure(servers, images, rounds=rounds))
    if "latency" in parts:
        idle, outages = (5, 1) if quick else (15, 3)
        report.part("From 202 to claimed", lambda: wakeup_latency.measure(servers, small, idle=idle, outages=outages))


if __name__ == "__main__":
    sys.exit(main())
