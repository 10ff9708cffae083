"""The preparation of a deployment in containers, as far as it can be tested without a Docker engine."""

import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from deploy.make_secrets import create_secrets
from scripts.containers.engine import ROOT
from shared.media_types import CONTENT_TYPES
from shared.settings import Settings
from web.http import request_id

Owners = dict[str, int]


@pytest.fixture
def owners() -> Owners:
    return {}


@pytest.fixture
def chown(owners: Owners) -> Callable[[Path, int, int], None]:
    def record(path: Path, uid: int, gid: int) -> None:
        assert uid == gid
        owners[path.with_suffix("").name] = uid

    return record


def test_secrets_are_created_once(tmp_path: Path, owners: Owners, chown: Callable[[Path, int, int], None]) -> None:
    created = create_secrets(tmp_path, chown)
    first = {name: (tmp_path / name).read_text() for name in created}
    assert set(created) == {"mongodb/key", "mongodb/administrator", "app/mongodb_url", "app/redis_url", "app/signing_keys", "redis/redis.conf"}
    assert create_secrets(tmp_path, chown) == []
    assert {name: (tmp_path / name).read_text() for name in created} == first
    assert owners == {"key": 999, "administrator": 999, "mongodb_url": 10001, "redis_url": 10001, "signing_keys": 10001, "redis": 0}


def test_no_two_installations_share_a_secret(tmp_path: Path, chown: Callable[[Path, int, int], None]) -> None:
    texts = []
    for name in ("one", "two"):
        create_secrets(tmp_path / name, chown)
        texts.append({path.read_text() for path in (tmp_path / name).rglob("*") if path.is_file()})
    assert len(texts[0]) == 6
    assert not texts[0] & texts[1]


def test_only_its_owner_may_read_a_secret_except_that_of_redis_whose_uid_differs(tmp_path: Path, chown: Callable[[Path, int, int], None]) -> None:
    create_secrets(tmp_path, chown)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.rglob("*") if path.is_file()}
    assert modes == {"key": 0o400, "administrator": 0o400, "mongodb_url": 0o400, "redis_url": 0o400, "signing_keys": 0o400, "redis.conf": 0o444}


def test_redis_and_the_service_have_the_same_password(tmp_path: Path, chown: Callable[[Path, int, int], None]) -> None:
    create_secrets(tmp_path, chown)
    password = urlsplit((tmp_path / "app/redis_url").read_text()).password
    assert password
    assert (tmp_path / "redis/redis.conf").read_text() == f"requirepass {password}\n"


def test_an_interrupted_start_is_completed_by_the_next(tmp_path: Path, chown: Callable[[Path, int, int], None]) -> None:
    def fails(path: Path, uid: int, gid: int) -> None:
        if path.name == "redis.new":
            raise OSError("full")
        chown(path, uid, gid)

    with pytest.raises(OSError, match="full"):
        create_secrets(tmp_path, fails)
    assert create_secrets(tmp_path, chown) == ["redis/redis.conf"]


def test_every_variable_of_the_compose_files_is_in_env_example_with_its_default() -> None:
    compose = "".join(file.read_text() for file in ROOT.glob("docker-compose*.yaml"))
    variables = set(re.findall(r"\$\{([A-Z_]+):-([^}]*)\}", compose))
    assert len(variables) >= 15
    assert len({name for name, _ in variables}) == len(variables), "a variable has two defaults"
    assert variables <= set(re.findall(r"^#([A-Z_]+)=(.*)$", (ROOT / ".env.example").read_text(), re.MULTILINE))


def test_nginx_has_the_body_limit_of_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LIMITS_MAX_BODY_BYTES", raising=False)
    for file in ("docker-compose.yaml", "deploy/nginx/start.sh"):
        assert set(re.findall(r"\$\{LIMITS_MAX_BODY_BYTES:-(\d+)\}", (ROOT / file).read_text())) == {str(Settings().limits.max_body_bytes)}


def test_nginx_has_the_file_extensions_and_request_ids_of_the_service() -> None:
    conf = (ROOT / "deploy/nginx/shelfsight.conf").read_text()
    assert dict(re.findall(r"^        (image/\w+) (\w+);$", conf, re.MULTILINE)) == {kind: ending for ending, kind in CONTENT_TYPES.items()}
    (endings,) = re.findall(r"\(\?<ending>([a-z|]+)\)", conf)
    assert set(endings.split("|")) == set(CONTENT_TYPES)
    assert request_id.ACCEPTED.pattern.removesuffix(r"\Z") in conf


def test_the_lock_file_of_cpu_builds_has_the_same_versions_as_the_default_one() -> None:
    pins = {name: dict(re.findall(r"^([a-z0-9-]+)==([^\s;\\]+)", (ROOT / "requirements" / name).read_text(), re.MULTILINE)) for name in ("torch.txt", "torch-cpu.txt")}
    cpu = {name: version.removesuffix("+cpu") for name, version in pins["torch-cpu.txt"].items()}
    assert {"torch", "torchvision"} <= cpu.keys()
    assert cpu.items() <= pins["torch.txt"].items()
    assert not [name for name in pins["torch.txt"].keys() - cpu.keys() if not name.startswith(("nvidia-", "cuda-", "triton"))]
