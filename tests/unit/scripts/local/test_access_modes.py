"""``scripts/start``: it refuses unsafe modes with one sentence, keeps those that require credentials, and says who can use the service."""

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest

from scripts.local import access_modes, start_checks
from scripts.local.installation import SAVED_VARIABLES, Installation, load_installation
from scripts.local.servers.ports import is_free
from shared.accounts import signing_key_file
from shared.settings import Access, Settings, Web
from tests.support.accounts import SIGNING_KEYS

KEYS = json.dumps(SIGNING_KEYS)
RANDOM_SECRET = "8f14e45fceea167a5a36dedd4bea2543"
PRODUCTION = {"SHELFSIGHT_ENV": "production"}
OTHER_VARIABLES = ("SIGNING_KEYS", "PUBLIC_URL", "WEB_TRUSTED_PROXIES", "OPEN_BEHIND_LOOPBACK_PROXY", "SIGNUP")


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give each test an environment without the variables of the modes."""
    before = dict(os.environ)
    for name in (*SAVED_VARIABLES, *OTHER_VARIABLES):
        monkeypatch.delenv(name, raising=False)
    yield
    os.environ.clear()
    os.environ.update(before)


def refuse(**variables: str) -> str:
    """Return the sentence with which a start is refused."""
    os.environ.update(variables)
    with pytest.raises(start_checks.CannotStart) as refused:
        start_checks.read_settings()
    sentence = str(refused.value)
    assert "\n" not in sentence
    assert not [name for name, value in variables.items() if name in {"SIGNING_KEYS", "MONGODB_URL", "REDIS_URL"} and value in sentence]
    return sentence


def test_development_needs_no_credentials() -> None:
    assert not start_checks.read_settings().access.is_on


def test_production_needs_credentials_but_no_keys_of_the_operator() -> None:
    os.environ.update(PRODUCTION)
    assert start_checks.read_settings().access.is_on


@pytest.mark.parametrize(
    "keys",
    ["no JSON", "[]", '{"a": 1}', '{"a": "too short, secret"}', json.dumps({"a": "secret " * 5}), json.dumps({"a": 2 * "0123456789abcdefghi"}), KEYS, '{"a": "<at least 32 random characters>"}'],
    ids=["no-json", "no-object", "no-text", "short", "few-characters", "repetition", "published", "the-example"],
)
@pytest.mark.parametrize("where", ["SIGNING_KEYS", "SIGNING_KEYS_FILE"])
def test_a_secret_that_can_be_guessed_is_refused(tmp_path: Path, keys: str, where: str) -> None:
    if where == "SIGNING_KEYS":
        assert "SIGNING_KEYS" in refuse(**PRODUCTION, SIGNING_KEYS=keys)
        return
    (tmp_path / "keys").write_text(keys)
    sentence = refuse(**PRODUCTION, SIGNING_KEYS_FILE=str(tmp_path / "keys"))
    assert str(tmp_path / "keys") in sentence
    assert keys not in sentence


def test_a_refused_secret_is_named_by_the_id_of_its_key() -> None:
    keys = json.dumps({"2026-11": "0123456789abcdef" + "fedcba9876543210", "2026-10": "short"})
    assert 'the secret of the key "2026-10" is too short' in refuse(**PRODUCTION, SIGNING_KEYS=keys)


def test_a_secret_in_place_of_the_id_of_its_key_is_not_shown() -> None:
    secret = "0123456789abcdef" + "fedcba9876543210"
    sentence = refuse(**PRODUCTION, SIGNING_KEYS=json.dumps({secret: "2026-11"}))
    assert "the secret of the key number 1 is too short" in sentence
    assert secret not in sentence


def test_a_file_of_keys_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    assert "cannot be read: No such file" in refuse(**PRODUCTION, SIGNING_KEYS_FILE=str(tmp_path / "none"))


def test_open_access_is_refused_in_production() -> None:
    assert "ACCESS=off is not allowed with SHELFSIGHT_ENV=production" in refuse(**PRODUCTION, ACCESS="off")


def test_open_access_is_refused_on_another_address() -> None:
    sentence = refuse(WEB_HOST="0.0.0.0")
    assert "WEB_HOST=0.0.0.0 is not allowed while access is open" in sentence
    assert "Set SHELFSIGHT_ENV=production or ACCESS=on, so that requests need credentials" in sentence
    os.environ.update(PRODUCTION)
    assert start_checks.read_settings().web.host == "0.0.0.0"


def test_an_unknown_mode_is_refused() -> None:
    assert "SHELFSIGHT_ENV" in refuse(SHELFSIGHT_ENV="Production")


@pytest.mark.parametrize("url", ["mongodb://db.example/?replicaSet=x", "mongodb://user@127.0.0.1,db.example:27017/", "mongodb+srv://db.example/", "mongodb://user:@[2001:db8::1]:27017/?authMechanism=SCRAM-SHA-256"])
def test_a_database_of_another_machine_without_a_password_is_refused_in_production(url: str) -> None:
    sentence = refuse(**PRODUCTION, MONGODB_URL=url)
    assert "MONGODB_URL names a server on another machine and contains no password" in sentence
    assert "db.example" not in sentence
    del os.environ["SHELFSIGHT_ENV"]
    start_checks.read_settings()


def test_a_redis_of_another_machine_without_a_password_is_refused_in_production() -> None:
    assert "REDIS_URL names a server on another machine" in refuse(**PRODUCTION, REDIS_URL="rediss://cache.example:6379/0")


@pytest.mark.parametrize(
    "variables",
    [
        {"MONGODB_URL": "mongodb://user:p%40ss@db.example,db2.example/?replicaSet=x", "REDIS_URL": "rediss://:secret@cache.example/0"},
        {"MONGODB_URL": "mongodb://db.example/?tls=true&authMechanism=MONGODB-X509", "REDIS_URL": "redis://cache.example?password=secret"},
        {"MONGODB_URL": "mongodb://127.0.0.1:27017,[::1]:27018/", "REDIS_URL": "redis://localhost/0"},
        {"MONGODB_URL": "mongodb://%2Ftmp%2Fmongodb-27017.sock/", "REDIS_URL": "unix:///run/redis.sock"},
    ],
    ids=["passwords", "other-credentials", "loopback", "sockets"],
)
def test_servers_that_nobody_else_can_use_are_accepted_in_production(variables: dict[str, str]) -> None:
    os.environ.update(PRODUCTION | variables)
    start_checks.read_settings()


def save(data: Path, **variables: str) -> Installation:
    """Save an installation as it was started with these variables."""
    installation = Installation(data, 5000, 1, variables=variables)
    installation.prepare()
    installation.save()
    return installation


def test_a_data_folder_keeps_the_modes_that_require_credentials(tmp_path: Path) -> None:
    assert access_modes.keep_modes(tmp_path) == []
    save(tmp_path, SHELFSIGHT_ENV="production", ACCESS="on")
    sentences = access_modes.keep_modes(tmp_path)
    assert [sentence.partition(",")[0] for sentence in sentences] == ["SHELFSIGHT_ENV=production", "ACCESS=on"]
    assert {name: Installation(tmp_path, 5000, 1).variables[name] for name in ("SHELFSIGHT_ENV", "ACCESS")} == {"SHELFSIGHT_ENV": "production", "ACCESS": "on"}


def test_modes_that_the_environment_sets_count(tmp_path: Path) -> None:
    save(tmp_path, SHELFSIGHT_ENV="production", ACCESS="on")
    os.environ.update(SHELFSIGHT_ENV="development", ACCESS="off")
    assert access_modes.keep_modes(tmp_path) == []
    assert not start_checks.read_settings().access.is_on


def test_open_access_is_not_kept(tmp_path: Path) -> None:
    save(tmp_path, SHELFSIGHT_ENV="development", ACCESS="off")
    os.environ.update(PRODUCTION)
    assert access_modes.keep_modes(tmp_path) == []
    assert start_checks.read_settings().access.is_on


def test_the_modes_are_saved_without_keys(tmp_path: Path) -> None:
    os.environ.update(PRODUCTION, WEB_HOST="0.0.0.0", SIGNING_KEYS=KEYS)
    installation = Installation(tmp_path, 5000, 1)
    installation.prepare()
    installation.save()
    found = load_installation(tmp_path)
    assert found is not None
    assert (found.is_production, found.needs_credentials, found.web_host, found.signing_keys_file) == (True, True, "0.0.0.0", None)
    assert SIGNING_KEYS["test"] not in (tmp_path / "run/house.json").read_text()


@pytest.mark.parametrize(
    ("host", "url"),
    [(None, "http://127.0.0.1:5000"), ("0.0.0.0", "http://127.0.0.1:5000"), ("::", "http://[::1]:5000"), ("192.0.2.7", "http://192.0.2.7:5000"), ("2001:db8::7", "http://[2001:db8::7]:5000")],
)
def test_the_address_for_clients_on_this_machine(tmp_path: Path, host: str | None, url: str) -> None:
    assert Installation(tmp_path, 5000, 1, variables={"WEB_HOST": host} if host else {}).url == url


@pytest.mark.parametrize(("host", "address"), [("127.0.0.1", "127.0.0.1:5000"), ("::1", "[::1]:5000"), ("shelf.example", "shelf.example:5000")])
def test_the_web_front_listens_on_this_address(host: str, address: str) -> None:
    assert Web(host=host, port=5000).address == address


@pytest.mark.parametrize("host", ["192.0.2.7", "2001:db8::7", "no such host"])
def test_an_address_of_another_machine_is_one_sentence(host: str) -> None:
    sentence = access_modes.check_host(host)
    assert sentence is not None
    assert sentence.startswith(f"WEB_HOST={host} is not an address of this machine")
    assert "\n" not in sentence


def test_every_address_of_this_machine_is_accepted() -> None:
    assert [host for host in ("127.0.0.1", "127.0.0.2", "0.0.0.0", "localhost") if access_modes.check_host(host)] == []


def test_a_port_is_checked_on_the_address_of_the_web_front() -> None:
    with socket.create_server(("127.0.0.2", 0)) as server:
        port = server.getsockname()[1]
        assert not is_free(port, "127.0.0.2")
        assert is_free(port, "127.0.0.3")


def describe(**variables: str) -> str:
    return access_modes.describe(Installation(Path("data"), 5000, 1, variables=variables))


def test_an_open_service_says_who_can_reach_it() -> None:
    assert describe().startswith("OPEN (development): nobody needs credentials, so every user and program of this machine can see, change and delete everything.")
    assert "everybody who reaches 0.0.0.0:5000 can" in describe(WEB_HOST="0.0.0.0")


def test_a_closed_service_says_who_can_reach_it() -> None:
    assert describe(SHELFSIGHT_ENV="production") == "production; every request needs credentials; other machines cannot connect"
    assert describe(ACCESS="on").startswith("development; every request needs credentials")
    assert describe(SHELFSIGHT_ENV="production", WEB_HOST="0.0.0.0").endswith("other machines can connect (0.0.0.0:5000, plain HTTP)")


def settings_of(web: Web, environment: Literal["development", "production"] = "development") -> Settings:
    return Settings(web=web, access=Access(access="on", signing_keys=json.dumps({"1": RANDOM_SECRET}), environment=environment))


def test_plain_http_on_another_address_is_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    start_checks.check_transport(settings_of(Web()))
    start_checks.check_transport(settings_of(Web(host="0.0.0.0", public_url="https://shelf.example", trusted_proxies='["10.0.0.1"]')))
    assert capsys.readouterr().err == ""
    start_checks.check_transport(settings_of(Web(host="0.0.0.0")))
    warning = capsys.readouterr().err
    assert warning.startswith("warning: WEB_HOST=0.0.0.0 is reached over plain HTTP")
    assert warning.count("\n") == 1
    assert all(name in warning for name in ("TLS", "PUBLIC_URL", "WEB_TRUSTED_PROXIES"))


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_an_https_address_without_a_trusted_proxy_is_refused_in_production(capsys: pytest.CaptureFixture[str], host: str) -> None:
    web = Web(host=host, public_url="https://shelf.example")
    start_checks.check_transport(settings_of(web))
    warning = capsys.readouterr().err
    assert warning.startswith("warning: PUBLIC_URL is an https address, but WEB_TRUSTED_PROXIES is empty")
    assert warning.count("\n") == 1
    with pytest.raises(start_checks.CannotStart, match="WEB_TRUSTED_PROXIES is empty"):
        start_checks.check_transport(settings_of(web, environment="production"))
    start_checks.check_transport(settings_of(Web(host=host, public_url="https://shelf.example", trusted_proxies='["127.0.0.1"]'), environment="production"))
    assert capsys.readouterr().err == ""


def test_keys_of_the_operator_that_other_users_can_read_are_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "keys"
    signing_key_file.create(path)
    installation = Installation(tmp_path / "data", 5000, 1, variables={"SIGNING_KEYS_FILE": str(path)})
    start_checks.warn_of_exposed_keys(installation)
    assert capsys.readouterr().err == ""
    path.chmod(0o604)
    start_checks.warn_of_exposed_keys(installation)
    warning = capsys.readouterr().err
    assert warning.startswith(f"warning: The signing keys in {path} are open to other users (mode 0604)")
    assert warning.count("\n") == 1
