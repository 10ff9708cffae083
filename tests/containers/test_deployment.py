"""Restrictions of the containers, and data that survives a restart of the deployment."""

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

SERVICES = ("nginx", "web", "worker", "inspector", "jobs", "sweep", "mongodb", "redis")
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
connection = http.client.HTTPConnection(address, 8080, timeout=10)
try:
    connection.request("GET", path, headers={"Host": "localhost"} | json.loads(headers))
    print(json.loads(connection.getresponse().read())["images"][0]["url"])
except OSError as error:
    print(error)
"""


@pytest.mark.parametrize("service", SERVICES)
def test_a_container_runs_without_root_on_a_read_only_file_system_with_limits(service: str, deployment: Deployment) -> None:
    for container in deployment.containers(service):
        description = deployment.inspect(container)
        host = description["HostConfig"]
        assert deployment.execute(container, "id", "-u").strip() != "0"
        assert host["ReadonlyRootfs"]
        assert host["CapDrop"] == ["ALL"]
        assert not host["CapAdd"]
        assert host["Memory"] > 0
        assert host["PidsLimit"] > 0
        assert bool(host["PortBindings"]) == (service == "nginx")
        assert not any("://" in variable and "@" in variable for variable in description["Config"]["Env"]), "a password is in the environment"


def test_the_databases_refuse_clients_without_a_password(deployment: Deployment) -> None:
    web = deployment.containers("web")[0]
    assert deployment.execute(web, "python", "-c", _CONNECT_WITHOUT_PASSWORD).split() == ["13", "NOAUTH"]


def test_the_web_image_contains_no_torch_and_the_worker_image_no_training_code(deployment: Deployment) -> None:
    find = "import importlib.util as u; print([n for n in ('torch', 'cv2', 'worker') if u.find_spec(n)])"
    assert deployment.execute(deployment.containers("web")[0], "python", "-c", find).strip() == "[]"
    worker = deployment.containers("worker")[0]
    assert "train" not in deployment.execute(worker, "ls", "/app/worker/vision").split()


def test_nginx_refuses_to_be_published_on_other_addresses_than_loopback(deployment: Deployment) -> None:
    with pytest.raises(EngineError, match=r"LISTEN=0\.0\.0\.0:5000 is not a loopback address"):
        deployment.compose("run", "--rm", "--no-deps", "--env", "LISTEN=0.0.0.0:5000", "nginx")


def test_a_trusted_proxy_determines_the_client_address_and_the_scheme(deployment: Deployment, url: str) -> None:
    batch = UploadLoad(url, 4, lambda: 0).send([draw_valid_image(random.Random(4))])
    web = deployment.containers("web")[0]
    networks = deployment.inspect(web)["NetworkSettings"]["Networks"]
    peer = next(network["IPAddress"] for name, network in networks.items() if name.endswith("_front"))
    nginx = deployment.compose("run", "--detach", "--rm", "--no-deps", "--env", f"TRUSTED_PROXY={peer}", "nginx").split()[-1]
    try:
        address = next(iter(deployment.inspect(nginx)["NetworkSettings"]["Networks"].values()))["IPAddress"]

        def image_url(**headers: str) -> str:
            header_json = json.dumps({name.replace("_", "-"): value for name, value in headers.items()})
            return deployment.execute(web, "python", "-c", _REQUEST_AS_PROXY, address, f"/image_batches/{batch.batch_id}", header_json).strip()

        wait_until(lambda: image_url().startswith("http://localhost"), 20, "the second nginx responds")
        request_id = f"proxied-{time.time_ns()}"
        assert image_url(X_Forwarded_Proto="https", X_Forwarded_For="203.0.113.9", X_Request_ID=request_id).startswith("https://localhost")
        assert image_url(X_Forwarded_Proto="gopher").startswith("http://localhost")
        logs = "".join(deployment.manage("logs", container) for container in deployment.containers("web"))
        assert [json.loads(line)["client"] for line in logs.splitlines() if request_id in line] == ["203.0.113.9"]
    finally:
        deployment.manage("stop", nginx)


def test_down_and_up_again_keeps_all_data(url: str, client: httpx.Client, deployment: Deployment) -> None:
    images = [draw_valid_image(random.Random(5)) for _ in range(3)]
    batch = UploadLoad(url, 5, lambda: 0).send(images)
    before = wait_until_finished(client, batch.batch_id)
    deployment.compose("down", limit_s=180)
    deployment.compose("up", "--detach", "--wait", limit_s=300)
    assert client.get(f"/image_batches/{batch.batch_id}").json() == before
    for document, image in zip(before["images"], images, strict=True):
        assert client.get(f"/uploads/{document['id']}.{image.extension}").content == image.data
    second_batch = UploadLoad(url, 6, lambda: 0).send(images)
    assert wait_until_finished(client, second_batch.batch_id)["status"] == "done"
