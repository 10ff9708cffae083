"""Measure downloads of a 200 KB image through the deployment's nginx, against a plain nginx that serves the same file.

Another nginx of the deployment checks the signature in the URL of the image. This benchmark needs a Docker engine. It starts a separate compose project (shelfsight-bench) and removes it at the end.
The clients run on this machine and connect to the containers' own addresses. The exit code is 0 if every target is met,
1 if a target is missed, and 2 if there is no Docker engine. With --smoke, it needs no Docker engine: it downloads from a
web process alone.
"""

import argparse
import contextlib
import json
import os
import sys
import tempfile
import time
import uuid
from functools import partial
from pathlib import Path
from typing import Final

import httpx

from scripts.bench import sample_uploads
from scripts.bench.download_rates import Downloaders, Source
from scripts.bench.extent import Extent, add_options
from scripts.bench.report import Report, Row, compare
from scripts.bench.servers import WEB, Gunicorn, Servers, running
from scripts.bench.timing import interleave, median
from scripts.containers import engine
from scripts.containers.engine import ROOT, Deployment, EngineError
from scripts.local.servers.ports import LOOPBACK, free_port
from shared.accounts.signed_urls import UrlSigning

_PROJECT: Final = "shelfsight-bench"
_PLAIN: Final = f"{_PROJECT}-plain"
_SUBNET: Final = "10.213.79.0/24"
_COMPOSE_TIMEOUT_S: Final = 3600
_WAIT_S: Final = 30
_AT_LEAST: Final = 0.9
_SIGNED_AT_LEAST: Final = 0.8
_DOWNLOADERS: Final = {"processes": 2, "connections": 4}


def main() -> int:
    """Run the benchmark; return the exit code."""
    parser = argparse.ArgumentParser(prog="scripts/bench/download", description=__doc__)
    add_options(parser, quick="run fewer and shorter rounds; this takes half a minute and is less accurate")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows to this file as JSON")
    args = parser.parse_args()
    report = Report("scripts/bench/download", args.extent)
    if args.extent is Extent.SMOKE:
        report.add_part("Downloads from one web process", _measure_web_process)
        return report.finish(args.json)
    if problem := engine.find_problem():
        print(f"No usable Docker engine with compose: {problem}", file=sys.stderr)
        return 2
    signed = ""
    deployment = Deployment(_PROJECT, {"LISTEN": f"127.0.0.1:{free_port()}", "FRONT_SUBNET": _SUBNET, "WEB_IMAGE": f"{_PROJECT}-web", "WORKER_IMAGE": f"{_PROJECT}-worker"})
    try:
        report.log("starting all containers ...")
        deployment.compose("up", "--detach", "--wait", "--build", limit_s=_COMPOSE_TIMEOUT_S)
        image_id = _upload(f"http://{deployment.variables['LISTEN']}", sample_uploads.draw_jpeg(1))
        _start_plain(deployment)
        signed = _start_signed(deployment)
        report.add_part(f"Downloads of {sample_uploads.JPEG_BYTES // 1000} KB", lambda: _measure(deployment, signed, image_id, args.extent))
    except EngineError as error:
        print(error, file=sys.stderr)
        return 2
    finally:
        with contextlib.suppress(EngineError):  # the container may not exist
            engine.run(["docker", "rm", "--force", _PLAIN, *([signed] if signed else [])])
        deployment.compose("--profile", "*", "down", "--volumes", "--timeout", "20", limit_s=_COMPOSE_TIMEOUT_S)
    return report.finish(args.json)


def _upload(url: str, data: bytes) -> str:
    """Upload one image, wait until it is done, and return its id."""
    with httpx.Client(base_url=url, timeout=2 * _WAIT_S, trust_env=False) as client:
        location = _post(client, data).headers["Location"]
        batch = client.get(location, params={"wait": _WAIT_S}).raise_for_status().json()
    (image,) = batch["images"]
    if image["status"] != "done":
        raise EngineError(f"The image has the status {image['status']} after {_WAIT_S} s, expected done.")
    return str(image["id"])


def _post(client: httpx.Client, data: bytes) -> httpx.Response:
    metadata = [{"timestamp": "2026-01-15T09:00:00Z", "store_name": "bench", "camera_id": "1"}]
    headers = {"Idempotency-Key": uuid.uuid4().hex}
    return client.post("/upload_image_batch", data={"metadata": json.dumps(metadata)}, files={"file": data}, headers=headers).raise_for_status()


def _measure_web_process() -> list[Row]:
    """Measure downloads of an original, which needs no worker, from one web process without a file server in front of it."""
    with tempfile.TemporaryDirectory(prefix="shelfsight-bench-") as name, contextlib.ExitStack() as stack:
        servers = Servers(Path(name))
        stack.callback(servers.stop)
        web = Gunicorn("web", WEB, servers.environment, servers.folder)
        stack.enter_context(running(web))
        with httpx.Client(base_url=f"http://{LOOPBACK}:{web.port}", timeout=_WAIT_S, trust_env=False) as client:
            (image,) = _post(client, sample_uploads.draw_jpeg(1)).json()["images"]
        source = Source(LOOPBACK, web.port, image["file_path"])
        with Downloaders(processes=1, connections=1) as downloaders:
            return [Row("from one web process", downloaders.per_second(source, 0.1), "files/s")]


def _start_plain(deployment: Deployment) -> None:
    """Start the baseline: a second nginx, with the Docker image, network, volume and user of the deployment's nginx."""
    (nginx,) = deployment.containers("nginx")
    conf = ROOT / "scripts/bench/baselines/nginx_plain.conf"
    engine.run([
        "docker", "run", "--detach", "--name", _PLAIN, "--log-driver", "local", "--user", "10001:10001", "--read-only", "--tmpfs", "/tmp", "--network", f"{_PROJECT}_front",  # noqa: S108 -- a path in the container
        "--volumes-from", f"{nginx}:ro", "--volume", f"{conf}:/etc/nginx/plain.conf:ro", "--entrypoint", "nginx",
        str(deployment.inspect(nginx)["Config"]["Image"]), "-c", "/etc/nginx/plain.conf", "-g", "daemon off;",
    ])  # fmt: skip


def _start_signed(deployment: Deployment) -> str:
    """Start an nginx of the deployment that checks the signatures of URLs, and return the id of its container."""
    container = deployment.compose("run", "--detach", "--no-deps", "--env", "ACCESS=on", "nginx").split()[-1]
    until = time.monotonic() + _WAIT_S
    while not _responds(_address(deployment, container)):
        if time.monotonic() > until:
            raise EngineError(f"The nginx with signatures does not respond after {_WAIT_S} s.")
        time.sleep(0.2)  # poll, because the container sends no notification
    return container


def _responds(address: str) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(f"http://{address}:8080/limits", headers={"Host": "localhost"}, timeout=_WAIT_S, trust_env=False).status_code == 200
    return False


def _signed_path(deployment: Deployment, container: str, image_id: str) -> str:
    """Return the path of an image with a signature that this nginx accepts for an hour."""
    key = next(iter(json.loads(deployment.execute(container, "cat", "/secrets/signed_url_keys.json")).values()))
    resource = f"/uploads/{image_id}"
    return f"{resource}.jpg{UrlSigning(key.encode(), int(time.time()) + 3600).query(resource)}"


def _measure(deployment: Deployment, signed: str, image_id: str, extent: Extent) -> list[Row]:
    (nginx,) = deployment.containers("nginx")
    web = deployment.containers("web")[0]
    shard, batch, index = image_id[30:32], image_id[:32], image_id[32:]
    file = f"/files/{shard}/{batch}/{index}.jpg"
    sources = {
        "plain": (_PLAIN, Source(_address(deployment, _PLAIN), 8080, file)),
        "no log": (_PLAIN, Source(_address(deployment, _PLAIN), 8081, file)),
        "ours": (nginx, Source(_address(deployment, nginx), 8080, f"/uploads/{image_id}.jpg")),
        "signed": (signed, Source(_address(deployment, signed), 8080, _signed_path(deployment, signed, image_id))),
        "web": (web, Source(_address(deployment, web), 5000, f"/uploads/{image_id}.jpg")),
    }
    seconds, rounds = (1.0, 5) if extent is Extent.QUICK else (3.0, 15)
    with Downloaders(**_DOWNLOADERS) as downloaders:

        def measure_once(container: str, source: Source) -> tuple[float, float]:
            cpu_before = _cpu_seconds(deployment, container)
            rate = downloaders.per_second(source, seconds)
            return rate, (_cpu_seconds(deployment, container) - cpu_before) / (rate * seconds) * 1e6

        samples = interleave({name: partial(measure_once, *source) for name, source in sources.items()}, rounds)
    rate = {name: median(sample[0] for sample in of_source) for name, of_source in samples.items()}
    cpu = {name: median(sample[1] for sample in of_source) for name, of_source in samples.items()}
    return [
        compare("through nginx, of an nginx with the plain file", rate["ours"], "files/s", rate["plain"], at_least=_AT_LEAST),
        compare("the same, of one that keeps no access log", rate["ours"], "files/s", rate["no log"]),
        compare("nginx's CPU a file, of the other's", cpu["ours"], "us", cpu["plain"]),
        compare("with a signed URL, of an nginx with the plain file", rate["signed"], "files/s", rate["plain"], at_least=_SIGNED_AT_LEAST),
        compare("nginx's CPU a file with a signed URL, of the other's", cpu["signed"], "us", cpu["plain"]),
        compare("from one web replica itself, of the plain file", rate["web"], "files/s", rate["plain"]),
    ]


def _address(deployment: Deployment, container: str) -> str:
    """Return a container's own address on the Docker network ``front``."""
    return str(deployment.inspect(container)["NetworkSettings"]["Networks"][f"{_PROJECT}_front"]["IPAddress"])


def _cpu_seconds(deployment: Deployment, container: str) -> float:
    """Read the CPU seconds that the processes of a container have used (see proc(5))."""
    rows = deployment.execute(container, "sh", "-c", "cat /proc/[0-9]*/stat").splitlines()
    fields = [row.rpartition(")")[2].split() for row in rows]
    return sum(int(field[11]) + int(field[12]) for field in fields) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    sys.exit(main())
