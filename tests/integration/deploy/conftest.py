"""Fixtures of the tests of nginx while access is on."""

import json
from collections.abc import Iterator
from contextlib import ExitStack, closing

import pytest

from scripts.local.servers.ports import free_port
from shared import settings
from shared.storage.mongo import connect
from tests.integration.deploy.nginx_deployment import (
    ACCESS,
    CORS,
    ORIGINAL,
    Deployment,
    begin_upload,
    derived_keys,
    read_answer,
    write_files,
)
from tests.support.accounts import SIGNING_KEYS, bearer, make_key
from tests.support.databases import Databases
from tests.support.gunicorn_front import run_web_front
from tests.support.ledger import process_all
from tests.support.nginx_front import TRUSTS_NGINX, Mounted, run_nginx
from tests.support.service_stack import wait_until
from tests.support.web_client import image_payload


@pytest.fixture(scope="module")
def database(databases: Databases) -> Iterator[settings.Mongo]:
    lent = databases.lend()
    yield lent
    databases.give_back(lent)


@pytest.fixture(scope="module")
def deployment(database: settings.Mongo, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    folder = tmp_path_factory.mktemp("deployment")
    keys = derived_keys(SIGNING_KEYS)
    with (
        closing(connect(database, app="test").client) as client,
        run_web_front(database, folder, **ACCESS, **CORS, **TRUSTS_NGINX) as web,
        run_nginx(web.port, Mounted(folder / "blobs", keys), ACCESS="on", LISTEN="0.0.0.0:5000", UPLOAD_BUFFER="256m", **CORS) as nginx,
        run_nginx(free_port(), Mounted(folder / "blobs", keys), SHELFSIGHT_ENV="production", **CORS) as alone,
    ):
        db = client[database.database]
        body = json.dumps([image_payload(ORIGINAL)]).encode()
        with ExitStack() as stack:
            accepted = read_answer(begin_upload(stack, web.port, "/upload_image_batch", len(body), body, **bearer(make_key(db))))
        image = json.loads(accepted.body)["images"][0]["id"]
        wait_until(lambda: process_all(db) == 1, 10, "the image can be claimed")
        (work,) = db.images.distinct("work", {"_id": image})
        write_files(folder / "blobs", image, work["fence"])
        yield Deployment(nginx, alone, web, db, image, folder / "blobs")
