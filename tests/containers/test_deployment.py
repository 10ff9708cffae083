"""How the containers are closed, and what they keep."""

import json
import random
import time

import httpx
import pytest

from scripts.containers.engine import Deployment, EngineError
from tests.containers.oracle import wait_until_finished
from tests.faults.images import draw_valid_image
from tests.faults.upload_load import UploadLoad
from tests.support.service_stack import wait_until

SERVICES = ("nginx", "web", "worker", "inspector", "sweep", "mongodb", "redis")
_CONNECT_WITHOUT_PASSWORD = """
import pymongo, redis, sys
from shared.settings import Settings
try:
    pymongo.MongoClient("mongodb://mongodb:27017", directConnection=True, serverSelectionTimeoutMS=3000).shelfsight.images.find_one()
    print("mongodb answers")
except pymongo.errors.OperationFailure as error:
    print(error.code)
try:
    redis.Redis("redis", socket_timeout=3).ping()
    print("redis answers")
except redis.AuthenticationError:
    print("NOAUTH")
"""

_REQUEST_AS_PROXY = """
import http.client, json, sys
address, path, headers = sys.argv[1:]
asked = http.client.HTTPConnection(address, 8080, timeout=10)
try:
    asked.request("GET", path, headers={"Host": "localhost"} | json.loads(headers))
    print(json.loads(asked.getresponse().read())["images"][0]["url"])
except OSError as error:
    print(error)
"""


@pytest.mark.parametrize("service", SERVICES)
def test_a_container_is_nobody_on_a_read_only_disk_with_limits(service: str, deployment: Deployment) -> None:
    for container in deployment.containers(service):
        found = deployment.inspect(container)
        host = found["HostConfig"]
        assert deployment.execute(container, "id", "-u").strip() != "0"
        assert host["ReadonlyRootfs"]
        assert host["CapDrop"] == ["ALL"]
        assert not host["CapAdd"]
        assert host["Memory"] > 0
        assert host["PidsLimit"] > 0
        assert bool(host["PortBindings"]) == (service == "nginx")
        assert not any("://" in one and "@" in one for one in found["Config"]["Env"]), "a password in the environment"


def test_the_databases_answer_nobody_without_a_password(deployment: Deployment) -> None:
    web = deployment.containers("web")[0]
    assert deployment.execute(web, "python", "-c", _CONNECT_WITHOUT_PASSWORD).split() == ["13", "NOAUTH"]


def test_the_web_has_no_torch_and_the_worker_no_training(deployment: Deployment) -> None:
    find = "import importlib.util as u; print([n for n in ('torch', 'cv2', 'worker') if u.find_spec(n)])"
    assert deployment.execute(deployment.containers("web")[0], "python", "-c", find).strip() == "[]"
    worker = deployment.containers("worker")[0]
    assert "train" not in deployment.execute(worker, "ls", "/app/worker/vision").split()


def test_nginx_is_published_on_loopback_or_not_at_all(deployment: Deployment) -> None:
    with pytest.raises(EngineError, match=r"LISTEN=0\.0\.0\.0:5000 is refused"):
        deployment.compose("run", "--rm", "--no-deps", "--env", "LISTEN=0.0.0.0:5000", "nginx")


def test_a_trusted_proxy_says_who_asks_and_by_which_scheme(deployment: Deployment, url: str) -> None:
    sent = UploadLoad(url, 4, lambda: 0).send([draw_valid_image(random.Random(4))])
    web = deployment.containers("web")[0]
    networks = deployment.inspect(web)["NetworkSettings"]["Networks"]
    peer = next(network["IPAddress"] for name, network in networks.items() if name.endswith("_front"))
    nginx = deployment.compose("run", "--detach", "--rm", "--no-deps", "--env", f"TRUSTED_PROXY={peer}", "nginx").split()[-1]
    try:
        address = next(iter(deployment.inspect(nginx)["NetworkSettings"]["Networks"].values()))["IPAddress"]

        def asked(**headers: str) -> str:
            given = json.dumps({name.replace("_", "-"): value for name, value in headers.items()})
            return deployment.execute(web, "python", "-c", _REQUEST_AS_PROXY, address, f"/image_batches/{sent.batch_id}", given).strip()

        wait_until(lambda: asked().startswith("http://localhost"), 20, "the second nginx answers")
        mark = f"proxied-{time.time_ns()}"
        assert asked(X_Forwarded_Proto="https", X_Forwarded_For="203.0.113.9", X_Request_ID=mark).startswith("https://localhost")
        assert asked(X_Forwarded_Proto="gopher").startswith("http://localhost")
        logs = "".join(deployment.manage("logs", container) for container in deployment.containers("web"))
        assert [json.loads(line)["client"] for line in logs.splitlines() if mark in line] == ["203.0.113.9"]
    finally:
        deployment.manage("stop", nginx)


def test_down_and_up_again_finds_everything_there(url: str, client: httpx.Client, deployment: Deployment) -> None:
    pictures = [draw_valid_image(random.Random(5)) for _ in range(3)]
    sent = UploadLoad(url, 5, lambda: 0).send(pictures)
    before = wait_until_finished(client, sent.batch_id)
    deployment.compose("down", limit_s=180)
    deployment.compose("up", "--detach", "--wait", limit_s=300)
    assert client.get(f"/image_batches/{sent.batch_id}").json() == before
    for image, picture in zip(before["images"], pictures, strict=True):
        assert client.get(f"/uploads/{image['id']}.{picture.extension}").content == picture.data
    again = UploadLoad(url, 6, lambda: 0).send(pictures)
    assert wait_until_finished(client, again.batch_id)["status"] == "done"
