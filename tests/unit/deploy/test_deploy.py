"""The preparation of a deployment in containers, as far as it can be tested without a Docker engine."""

import contextlib
import json
import re
import ssl
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from deploy import make_secrets
from deploy.make_secrets import Chown, create_secrets, update_nginx_secrets
from scripts.containers.engine import ROOT
from shared.accounts import signing_key_file
from shared.accounts.signed_urls import PURPOSE
from shared.accounts.signing_key_file import CannotRotate
from shared.accounts.signing_keys import FixedSigningKeys
from shared.media_types import CONTENT_TYPES
from shared.settings import Settings
from shared.settings.access import parse_signing_keys
from tests.support.certificates import make_certificate
from web.annotations import views as annotations
from web.http import json_model, request_id
from web.receipts import views as receipts
from web.tags import bulk_views

Owners = dict[str, int]


@pytest.fixture
def owners() -> Owners:
    return {}


@pytest.fixture
def chown(owners: Owners) -> Chown:
    def record(path: Path, uid: int, gid: int) -> None:
        assert uid == gid
        owners[path.with_suffix("").name] = uid

    return record


def test_secrets_are_created_once(tmp_path: Path, owners: Owners, chown: Chown) -> None:
    created = create_secrets(tmp_path, chown)
    first = {name: (tmp_path / name).read_text() for name in created}
    assert set(created) == {"mongodb/key", "mongodb/administrator", "app/mongodb_url", "app/redis_url", "app/signing_keys.json", "redis/redis.conf"}
    assert create_secrets(tmp_path, chown) == []
    assert {name: (tmp_path / name).read_text() for name in created} == first
    assert owners == {"key": 999, "administrator": 999, "mongodb_url": 10001, "redis_url": 10001, "signing_keys": 10001, "redis": 0}


def test_no_two_installations_share_a_secret(tmp_path: Path, chown: Chown) -> None:
    texts = []
    for name in ("one", "two"):
        create_secrets(tmp_path / name, chown)
        texts.append({path.read_text() for path in (tmp_path / name).rglob("*") if path.is_file()})
    assert len(texts[0]) == 6
    assert not texts[0] & texts[1]


def test_only_its_owner_may_read_a_secret_except_that_of_redis_whose_uid_differs(tmp_path: Path, chown: Chown) -> None:
    create_secrets(tmp_path, chown)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.rglob("*") if path.is_file()}
    assert modes == {"key": 0o400, "administrator": 0o400, "mongodb_url": 0o400, "redis_url": 0o400, "signing_keys.json": 0o400, "redis.conf": 0o444}


def test_redis_and_the_service_have_the_same_password(tmp_path: Path, chown: Chown) -> None:
    create_secrets(tmp_path, chown)
    password = urlsplit((tmp_path / "app/redis_url").read_text()).password
    assert password
    assert (tmp_path / "redis/redis.conf").read_text() == f"requirepass {password}\n"


def test_an_interrupted_start_is_completed_by_the_next(tmp_path: Path, chown: Chown) -> None:
    def fails(path: Path, uid: int, gid: int) -> None:
        if path.name == "redis.new":
            raise OSError("full")
        chown(path, uid, gid)

    with pytest.raises(OSError, match="full"):
        create_secrets(tmp_path, fails)
    assert create_secrets(tmp_path, chown) == ["redis/redis.conf"]


KEYS = '{"b": "zyxwvutsrqponmlkjihgfedcba9876543210", "a": "0123456789abcdefghijklmnopqrstuvwxyz"}'


def test_the_signing_keys_of_an_older_version_stay_valid(tmp_path: Path, owners: Owners, chown: Chown) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app/signing_keys").write_text(KEYS)
    assert "app/signing_keys.json" not in create_secrets(tmp_path, chown)
    assert (tmp_path / "app/signing_keys.json").read_text() == KEYS
    (tmp_path / "app/signing_keys").write_text("of the older version, which has run again")
    create_secrets(tmp_path, chown)
    assert (tmp_path / "app/signing_keys.json").read_text() == KEYS
    assert not (tmp_path / "app/signing_keys").exists()


def test_nginx_gets_the_derived_keys_of_the_present_signing_keys_and_no_other_secret(tmp_path: Path, owners: Owners, chown: Chown) -> None:
    create_secrets(tmp_path, chown)
    assert update_nginx_secrets(tmp_path, chown, tmp_path, "") == ["nginx/signed_url_keys.json"]
    written = tmp_path / "nginx/signed_url_keys.json"
    assert (written.stat().st_mode & 0o777, owners["signed_url_keys"]) == (0o400, 10001)
    (key,) = json.loads(written.read_text()).values()
    secrets = "".join(path.read_text() for folder in ("app", "mongodb", "redis") for path in (tmp_path / folder).iterdir())
    assert key not in secrets
    assert not [secret for secret in re.findall("[0-9a-f]{48,}", secrets) if secret in written.read_text()]
    assert update_nginx_secrets(tmp_path, chown, tmp_path, "") == []
    (tmp_path / "app/signing_keys.json").chmod(0o600)
    (tmp_path / "app/signing_keys.json").write_text(KEYS)
    assert update_nginx_secrets(tmp_path, chown, tmp_path, "") == ["nginx/signed_url_keys.json"]
    of_file = json.loads(written.read_text())
    assert of_file == {key_id: value.decode() for key_id, value in FixedSigningKeys(parse_signing_keys(KEYS)).current().derive(PURPOSE).items()}
    update_nginx_secrets(tmp_path, chown, tmp_path, '{"c": "of the environment: 9f3k2l5h8d7s6a4q"}')
    assert json.loads(written.read_text()).keys() == {"c"}
    with pytest.raises(ValueError, match='SIGNING_KEYS: the secret of the key "c" is too short'):
        update_nginx_secrets(tmp_path, chown, tmp_path, '{"c": "short"}')


def test_the_keys_of_nginx_are_not_written_during_a_rotation(tmp_path: Path, chown: Chown, monkeypatch: pytest.MonkeyPatch) -> None:
    create_secrets(tmp_path, chown)
    monkeypatch.setattr(make_secrets, "_LOCK_WAIT_S", 0)
    with signing_key_file.locked(tmp_path / "app"), pytest.raises(CannotRotate, match="Another process is replacing"):
        update_nginx_secrets(tmp_path, chown, tmp_path, "")
    assert not (tmp_path / "nginx").exists()


def test_nginx_gets_the_certificate_and_its_key_as_one_file_until_they_are_unset(tmp_path: Path, owners: Owners, chown: Chown) -> None:
    create_secrets(tmp_path, chown)
    tls = tmp_path / "tls"
    tls.mkdir()
    made = make_certificate(tls, "DNS:localhost")
    made.certificate.rename(tls / "certificate.pem")
    assert "nginx/tls.pem" in update_nginx_secrets(tmp_path, chown, tls, "")
    written = tmp_path / "nginx/tls.pem"
    assert (written.stat().st_mode & 0o777, owners["tls"]) == (0o400, 10001)
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(written)
    for name in ("certificate.pem", "key.pem"):
        (tls / name).write_bytes(b"")
        with contextlib.suppress(ValueError):
            update_nginx_secrets(tmp_path, chown, tls, "")
    assert not written.exists()


@pytest.mark.parametrize("missing", ["certificate.pem", "key.pem"])
def test_a_certificate_without_its_key_is_refused(tmp_path: Path, chown: Chown, missing: str) -> None:
    create_secrets(tmp_path, chown)
    made = make_certificate(tmp_path, "DNS:localhost")
    made.certificate.rename(tmp_path / "certificate.pem")
    make_certificate(tmp_path, "DNS:localhost")  # another key
    with pytest.raises(ValueError, match=r"must be a certificate and its key .* \(KEY_VALUES_MISMATCH\)"):
        update_nginx_secrets(tmp_path, chown, tmp_path, "")
    (tmp_path / missing).unlink()
    with pytest.raises(ValueError, match="need each other"):
        update_nginx_secrets(tmp_path, chown, tmp_path, "")


def test_an_encrypted_key_is_refused_and_no_password_is_asked_for(tmp_path: Path, chown: Chown) -> None:
    create_secrets(tmp_path, chown)
    made = make_certificate(tmp_path, "DNS:localhost")
    made.certificate.rename(tmp_path / "certificate.pem")
    subprocess.run(["openssl", "pkcs8", "-topk8", "-in", made.key, "-out", tmp_path / "encrypted", "-passout", "pass:secret"], check=True, timeout=30)
    (tmp_path / "encrypted").rename(tmp_path / "key.pem")
    with pytest.raises(ValueError, match="without a password"):
        update_nginx_secrets(tmp_path, chown, tmp_path, "")


def test_every_variable_of_the_compose_files_is_in_env_example_with_its_default() -> None:
    compose = "".join(file.read_text() for file in ROOT.glob("docker-compose*.yaml"))
    variables = set(re.findall(r"\$\{([A-Z_]+):-([^}]*)\}", compose))
    assert len(variables) >= 15
    assert len({name for name, _ in variables}) == len(variables), "a variable has two defaults"
    assert variables <= set(re.findall(r"^#([A-Z_]+)=(.*)$", (ROOT / ".env.example").read_text(), re.MULTILINE))


def test_nginx_has_the_body_limit_of_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LIMITS_MAX_BODY_BYTES", raising=False)
    for file in ("docker-compose.yaml", "deploy/nginx/write_body_places.sh"):
        assert set(re.findall(r"\$\{LIMITS_MAX_BODY_BYTES:-(\d+)\}", (ROOT / file).read_text())) == {str(Settings().limits.max_body_bytes)}


def test_nginx_lets_the_receipt_of_the_largest_batch_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LIMITS_MAX_IMAGES", raising=False)
    for file in ("docker-compose.yaml", "deploy/nginx/write_body_places.sh"):
        assert re.findall(r"\$\{LIMITS_MAX_IMAGES:-(\d+)\}", (ROOT / file).read_text()) == [str(Settings().limits.max_images)]
    assert f"receipt=$(({receipts.MAX_BYTES} + {receipts.MAX_BYTES_PER_IMAGE} * ${{" in (ROOT / "deploy/nginx/write_body_places.sh").read_text()


def test_nginx_has_the_limits_of_the_handlers_of_tags_annotations_and_json() -> None:
    script = (ROOT / "deploy/nginx/write_body_places.sh").read_text()
    assert dict(re.findall(r"^(tags|annotations)=(\d+)$", script, re.MULTILINE)) == {"tags": str(bulk_views.MAX_BYTES), "annotations": str(annotations.MAX_BYTES)}
    (size,) = re.findall(r"^    client_max_body_size (\d+)k;", (ROOT / "deploy/nginx/shelfsight.conf").read_text(), re.MULTILINE)
    (default,) = re.findall(r"^    default (\d+);$", (ROOT / "deploy/nginx/start.sh").read_text(), re.MULTILINE)
    assert 1024 * int(size) == int(default) == json_model.MAX_BYTES


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
