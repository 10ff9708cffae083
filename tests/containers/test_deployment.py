"""How the containers are closed, and what they keep."""

import random

import httpx
import pytest

from scripts.containers.engine import Deployment
from tests.containers.oracle import finished
from tests.faults.load import Load
from tests.faults.pictures import good

SERVICES = ("nginx", "web", "worker", "sweep", "mongodb", "redis")
_ASK_WITHOUT_A_PASSWORD = """
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
    assert deployment.execute(web, "python", "-c", _ASK_WITHOUT_A_PASSWORD).split() == ["13", "NOAUTH"]


def test_the_web_has_no_torch_and_the_worker_no_training(deployment: Deployment) -> None:
    find = "import importlib.util as u; print([n for n in ('torch', 'cv2', 'worker') if u.find_spec(n)])"
    assert deployment.execute(deployment.containers("web")[0], "python", "-c", find).strip() == "[]"
    worker = deployment.containers("worker")[0]
    assert "train" not in deployment.execute(worker, "ls", "/app/worker/vision").split()


def test_down_and_up_again_finds_everything_there(url: str, client: httpx.Client, deployment: Deployment) -> None:
    pictures = [good(random.Random(5)) for _ in range(3)]
    sent = Load(url, 5, lambda: 0).send(pictures)
    before = finished(client, sent.batch_id)
    deployment.compose("down", limit_s=180)
    deployment.compose("up", "--detach", "--wait", limit_s=300)
    assert client.get(f"/image_batches/{sent.batch_id}").json() == before
    for image, picture in zip(before["images"], pictures, strict=True):
        assert client.get(f"/uploads/{image['id']}.{picture.ending}").content == picture.data
    again = Load(url, 6, lambda: 0).send(pictures)
    assert finished(client, again.batch_id)["status"] == "done"
