"""Settings come from the environment and from secret files, and are read once, when ``Settings()`` is called."""

import json
import os
import re
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_network
from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError

from scripts.local.installation import ROOT
from shared.augmentations import DEFAULT_AUGMENTATIONS
from shared.settings import Settings, read

PREFIXES = (
    "MONGODB_",
    "REDIS_",
    "BLOBS_",
    "LIMITS_",
    "WEB_",
    "WORKER_",
    "SWEEP_",
    "VISION_",
    "FETCH_",
    "INSPECT_",
    "LOG_",
    "RATE_",
)


@pytest.fixture(autouse=True)
def _without_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith(PREFIXES) or name in {"PUBLIC_URL", "OPEN_BEHIND_LOOPBACK_PROXY", "SECRETS_DIR"}:
            monkeypatch.delenv(name)


def test_the_defaults_are_the_documented_limits() -> None:
    limits = Settings().limits
    assert (limits.max_body_bytes, limits.max_images) == (64 * 1024 * 1024, 1000)
    assert (limits.max_image_bytes, limits.max_pixels) == (20 * 1024 * 1024, 50_000_000)
    assert Settings().web.host == "127.0.0.1"


def test_the_example_lists_every_setting_with_its_default() -> None:
    example = dict(re.findall(r"^#([A-Z_]+)=(.*)$", (ROOT / ".env.example").read_text(), re.MULTILINE))
    for group in dict(Settings()).values():
        for name, field in type(group).model_fields.items():
            variable = str(field.validation_alias or f"{group.model_config['env_prefix']}{name}".upper())
            assert variable in example
            if isinstance(field.default, int | float | str | Path):
                assert TypeAdapter(field.annotation).validate_python(example[variable]) == field.default, variable


def test_the_environment_is_read_when_settings_are_built(monkeypatch: pytest.MonkeyPatch) -> None:
    before = Settings()
    monkeypatch.setenv("LIMITS_MAX_IMAGES", "7")
    monkeypatch.setenv("PUBLIC_URL", "https://shelf.example")
    monkeypatch.setenv("MONGODB_URL", "mongodb://elsewhere/")
    after = Settings()
    assert (before.limits.max_images, after.limits.max_images) == (1000, 7)
    assert after.web.public_url == "https://shelf.example"
    assert after.mongo.url == "mongodb://elsewhere/"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LIMITS_MAX_IMAGES", "0"),
        ("LIMITS_MAX_IMAGES", "many"),
        ("WORKER_LEASE_S", "-1"),
        ("WORKER_LEASE_S", "inf"),
        ("WORKER_CLAIM_BYTES", "0"),
        ("MONGODB_CONNECT_TIMEOUT_S", "-1"),
        ("MONGODB_SOCKET_TIMEOUT_S", "0"),
        ("MONGODB_SERVER_SELECTION_TIMEOUT_S", "0.0001"),
        ("MONGODB_COMMIT_DEADLINE_S", "nan"),
        ("MONGODB_QUERY_DEADLINE_S", "inf"),
        ("WEB_THREADS", "1"),
        ("LOG_FORMAT", "xml"),
        ("MONGODB_CONNECT_TIMEOUT_S", "0.0005"),  # 0 milliseconds would be no limit
        ("MONGODB_SOCKET_TIMEOUT_S", "0.0005"),
        ("MONGODB_SERVER_SELECTION_TIMEOUT_S", "0"),
        ("MONGODB_QUERY_DEADLINE_S", "0.0005"),
    ],
)
def test_an_invalid_value_is_refused_at_the_start(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ValidationError):
        Settings()


def test_default_augmentations_may_be_set_and_may_be_an_empty_list(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings().default_augmentations == DEFAULT_AUGMENTATIONS
    monkeypatch.setenv("VISION_AUGMENTATIONS", '["rotate"]')
    assert Settings().default_augmentations == ("rotate",)
    monkeypatch.setenv("VISION_AUGMENTATIONS", "[]")
    assert Settings().default_augmentations == ()


def test_trusted_proxies_are_addresses_and_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings().web.trusted_proxies == ()
    monkeypatch.setenv("WEB_TRUSTED_PROXIES", '["10.0.0.5", "172.16.0.0/12", "fd00::/8"]')
    assert Settings().web.trusted_proxies == tuple(map(ip_network, ("10.0.0.5/32", "172.16.0.0/12", "fd00::/8")))


@pytest.mark.parametrize(
    "invalid", ["10.0.0.5", '"10.0.0.5"', "{}", "[5]", '["nginx"]', '["10.0.0.5/8"]', '["10.0.0.256"]']
)
def test_an_invalid_proxy_ends_the_start_with_a_sentence(monkeypatch: pytest.MonkeyPatch, invalid: str) -> None:
    monkeypatch.setenv("WEB_TRUSTED_PROXIES", invalid)
    assert 'WEB_TRUSTED_PROXIES must be a JSON list like ["10.0.0.5",' in error_at_the_start()


def test_fetch_lists_are_names_and_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings().fetch.blocked_domains == Settings().fetch.permitted_networks == ()
    monkeypatch.setenv("FETCH_BLOCKED_DOMAINS", '["Example.ORG.", "bücher.example"]')
    monkeypatch.setenv("FETCH_PERMITTED_NETWORKS", '["10.0.0.5", "fd00::/8"]')
    fetch = Settings().fetch
    assert fetch.blocked_domains == ("example.org", "xn--bcher-kva.example")
    assert fetch.permitted_networks == (ip_network("10.0.0.5/32"), ip_network("fd00::/8"))


@pytest.mark.parametrize(
    "name", ["BLOCKED_DOMAINS", "ALLOWED_DOMAINS", "PERMITTED_HOSTS", "BLOCKED_NETWORKS", "PERMITTED_NETWORKS"]
)
@pytest.mark.parametrize(
    "invalid",
    [
        "example.org",
        '"example.org"',
        "{}",
        '[""]',
        '["*.example.org"]',
        '["http://example.org"]',
        '["127.1"]',
        '["a b"]',
        '["::ffff:10.0.0.0/104"]',
    ],
)
def test_an_invalid_fetch_list_ends_the_start_with_a_sentence(
    monkeypatch: pytest.MonkeyPatch, name: str, invalid: str
) -> None:
    monkeypatch.setenv(f"FETCH_{name}", invalid)
    assert f"FETCH_{name} must be a JSON list like " in error_at_the_start()


def test_every_setting_of_inspections_is_positive(monkeypatch: pytest.MonkeyPatch) -> None:
    inspect = Settings().inspect
    assert (inspect.max_source_bytes, inspect.max_store_bytes, inspect.per_minute) == (4 << 20, 1 << 30, 60)
    for name in type(inspect).model_fields:
        monkeypatch.setenv(f"INSPECT_{name}".upper(), "0")
        assert f"invalid setting INSPECT_{name.upper()}: Input should be greater than 0" in error_at_the_start()
        monkeypatch.delenv(f"INSPECT_{name}".upper())


@pytest.mark.parametrize(
    ("rule", "values"),
    [
        ("WORKER_HARD_LIMIT_S must be greater than WORKER_SOFT_LIMIT_S", {"WORKER_SOFT_LIMIT_S": "330"}),
        ("WORKER_HARD_LIMIT_S must be greater than WORKER_SOFT_LIMIT_S", {"WORKER_HARD_LIMIT_S": "299"}),
        ("WORKER_TASK_S must be less than WORKER_SOFT_LIMIT_S", {"WORKER_TASK_S": "300"}),
        ("WORKER_CHILD_TIMEOUT_S must be less than WORKER_SOFT_LIMIT_S", {"WORKER_CHILD_TIMEOUT_S": "300"}),
        ("WORKER_CHILD_TIMEOUT_S must be less than WORKER_SOFT_LIMIT_S", {"WORKER_SOFT_LIMIT_S": "30"}),
        ("INSPECT_FAILED_S must not be greater than INSPECT_KEEP_S", {"INSPECT_FAILED_S": "86401"}),
        ("INSPECT_FRESH_S must not be greater than INSPECT_KEEP_S", {"INSPECT_KEEP_S": "299"}),
        ("FETCH_WHOLE_S must be less than WORKER_HARD_LIMIT_S", {"FETCH_WHOLE_S": "330"}),
        ("SWEEP_ORPHAN_AGE_S must be greater than MONGODB_COMMIT_DEADLINE_S", {"SWEEP_ORPHAN_AGE_S": "5"}),
        ("SWEEP_ORPHAN_AGE_S must be greater than MONGODB_COMMIT_DEADLINE_S", {"MONGODB_COMMIT_DEADLINE_S": "600"}),
    ],
)
def test_settings_that_contradict_each_other_end_the_start_with_a_sentence(
    monkeypatch: pytest.MonkeyPatch, rule: str, values: dict[str, str]
) -> None:
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    assert error_at_the_start().startswith(f"error: invalid settings: {rule}, ")


@pytest.mark.parametrize(
    "values",
    [
        {"WORKER_SOFT_LIMIT_S": "60", "WORKER_HARD_LIMIT_S": "60.5"},
        {"WORKER_LEASE_S": "1000"},
        {"WORKER_TASK_S": "299", "WORKER_CHILD_TIMEOUT_S": "299"},
        {"INSPECT_KEEP_S": "300", "INSPECT_FAILED_S": "300"},
        {"FETCH_WHOLE_S": "329", "FETCH_CONNECT_S": "1000"},
        {"LIMITS_MAX_IMAGE_BYTES": "1000000000", "LIMITS_MAX_BYTES_IN_FLIGHT": "1"},
    ],
)
def test_unusual_settings_that_work_together_are_accepted(
    monkeypatch: pytest.MonkeyPatch, values: dict[str, str]
) -> None:
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    assert read()


def test_the_values_of_the_example_are_accepted_together(monkeypatch: pytest.MonkeyPatch) -> None:
    defaults = read()
    for name, value in re.findall(r"^#([A-Z_]+)=(.*)$", (ROOT / ".env.example").read_text(), re.MULTILINE):
        monkeypatch.setenv(name, value)
    example = read()
    assert (example.worker, example.inspect, example.limits) == (defaults.worker, defaults.inspect, defaults.limits)


def test_an_image_index_fits_into_the_image_id() -> None:
    with pytest.raises(ValidationError):
        Settings().limits.model_validate({"max_images": 65_536})


@pytest.fixture
def secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder of secret files that settings are read from."""
    folder = tmp_path / "secrets"
    folder.mkdir()
    monkeypatch.setenv("SECRETS_DIR", str(folder))
    return folder


@contextmanager
def as_unprivileged_owner(folder: Path) -> Iterator[None]:
    """Run as an unprivileged owner of the folder, so that file modes apply even where the tests run as root."""
    user_id = os.geteuid()
    if user_id == 0:
        os.chown(folder, 65534, -1)
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user_id)


def error_at_the_start() -> str:
    with pytest.raises(SystemExit) as exit_info:
        read()
    return str(exit_info.value.code)


def test_a_setting_may_come_from_a_file_and_a_variable_takes_precedence(
    secrets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (secrets / "mongodb_url").write_text("mongodb://user:word@db/\n")
    (secrets / "redis_url").write_text("redis://:word@cache/0\n")
    (secrets / "public_url").write_text("https://shelf.example")
    (secrets / "vision_augmentations").write_text('["rotate"]')
    (secrets / "unrelated").write_text("?")
    monkeypatch.setenv("REDIS_URL", "redis://elsewhere/0")
    settings = Settings()
    assert settings.mongo.url == "mongodb://user:word@db/"
    assert settings.redis.url == "redis://elsewhere/0"
    assert settings.web.public_url == "https://shelf.example"
    assert settings.default_augmentations == ("rotate",)
    assert settings.limits.max_images == 1000


def test_an_empty_variable_counts_as_unset(secrets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (secrets / "redis_url").write_text("redis://cache/0")
    monkeypatch.setenv("REDIS_URL", "")
    monkeypatch.setenv("LIMITS_MAX_IMAGES", "")
    assert (Settings().redis.url, Settings().limits.max_images) == ("redis://cache/0", 1000)
    monkeypatch.setenv("SECRETS_DIR", "")
    assert Settings().redis.url == "redis://127.0.0.1:6379/0"


@pytest.mark.parametrize(
    "program",
    [
        "worker.entrypoints.images",
        "worker.entrypoints.inspections",
        "worker.entrypoints.sweep",
        "scripts.administration migrate",
        "gunicorn -c web/server/gunicorn_conf.py web.app:create_app()",
    ],
)
def test_every_program_ends_with_a_sentence_when_the_folder_of_secrets_is_missing(tmp_path: Path, program: str) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "SECRETS_DIR": str(tmp_path / "missing")}
    command = [sys.executable, "-m", *program.split()]
    process = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert process.returncode == 1
    assert (
        process.stderr == f'error: cannot read a setting: SECRETS_DIR: directory "{tmp_path}/missing" does not exist\n'
    )


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "[Errno 2] No such file or directory: '{path}'"),
        ('{"1": "short"}', 'SIGNING_KEYS: the secret of the key "1" is too short or too regular; use at least 32 random characters.'),
    ],
    ids=["missing", "short"],
)
def test_unusable_signing_keys_end_the_web_front_with_a_sentence(tmp_path: Path, content: str | None, reason: str) -> None:
    path = tmp_path / "keys"
    if content is not None:
        path.write_text(content)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "SHELFSIGHT_ENV": "production", "SIGNING_KEYS_FILE": str(path)}
    command = [sys.executable, "-m", "gunicorn", "-c", "web/server/gunicorn_conf.py", "web.app:create_app()"]
    process = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert process.returncode == 1
    assert process.stderr == f"error: invalid setting SIGNING_KEYS_FILE: {reason.format(path=path)}\n"


def test_a_folder_of_secrets_that_is_a_file_ends_the_start_with_a_sentence(secrets: Path) -> None:
    secrets.rmdir()
    secrets.touch()
    assert "must reference a directory" in error_at_the_start()


def test_a_secret_that_is_a_folder_ends_the_start_with_a_sentence(secrets: Path) -> None:
    (secrets / "mongodb_url").mkdir()  # what a mount creates in place of a missing file
    with warnings.catch_warnings(action="ignore"):  # as outside the tests, where a warning is not an error
        assert "found a directory instead" in error_at_the_start()


def test_an_empty_secret_ends_the_start_with_a_sentence(secrets: Path) -> None:
    (secrets / "mongodb_url").touch()
    assert error_at_the_start() == "error: invalid setting MONGODB_URL: String should have at least 1 character"


@pytest.mark.parametrize("unreadable", [".", "mongodb_url"])
def test_an_unreadable_secret_ends_the_start_with_a_sentence(monkeypatch: pytest.MonkeyPatch, unreadable: str) -> None:
    with tempfile.TemporaryDirectory() as folder, as_unprivileged_owner(Path(folder)):
        (Path(folder) / "mongodb_url").write_text("mongodb://db/")
        monkeypatch.setenv("SECRETS_DIR", folder)
        assert Settings().mongo.url == "mongodb://db/"
        (Path(folder) / unreadable).chmod(0)
        message = error_at_the_start()
        (Path(folder) / unreadable).chmod(0o700)
    assert message.startswith("error: cannot read a setting: ")
    assert "Permission denied" in message


def test_an_invalid_setting_is_reported_without_its_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIMITS_MAX_IMAGES", "secret")
    message = error_at_the_start()
    assert message.startswith("error: invalid setting LIMITS_MAX_IMAGES: ")
    assert "secret" not in message


def test_origins_are_written_as_browsers_send_them(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings().web.cors_origins == ()
    origins = ("https://labels.example.org", "http://localhost:8080", "https://[2001:db8::1]:8443", "http://10.0.0.5")
    monkeypatch.setenv("CORS_ORIGINS", json.dumps(origins))
    assert Settings().web.cors_origins == origins


@pytest.mark.parametrize(
    "value",
    ["https://a.example", "[1]", '["*"]', '["null"]', '["a.example"]', '["https://a.example/"]', '["https://A.example"]', '["https://a.example:443"]',
     '["http://a.example:80"]', '["https://*.example"]', '["https://user@a.example"]', '["ftp://a.example"]', '["https://a.example", "https://b.example/x"]'],
)  # fmt: skip
def test_what_is_no_origin_is_refused_at_the_start(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("CORS_ORIGINS", value)
    with pytest.raises(ValidationError, match="CORS_ORIGINS must be a JSON list"):
        Settings()
