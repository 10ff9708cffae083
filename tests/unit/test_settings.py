"""Settings come from the environment, once, when they are asked for."""

import os

import pytest
from pydantic import ValidationError

from shared.contract import DEFAULT_AUGMENTATIONS
from shared.settings import Settings

PREFIXES = ("MONGODB_", "REDIS_", "BLOBS_", "LIMITS_", "WEB_", "WORKER_", "SWEEP_", "VISION_", "LOG_")


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith(PREFIXES) or name in {"PUBLIC_URL", "OPEN_BEHIND_LOOPBACK_PROXY"}:
            monkeypatch.delenv(name)


def test_the_defaults_are_the_contracts_limits() -> None:
    limits = Settings().limits
    assert (limits.max_body_bytes, limits.max_images) == (64 * 1024 * 1024, 1000)
    assert (limits.max_image_bytes, limits.max_pixels) == (20 * 1024 * 1024, 50_000_000)
    assert Settings().web.host == "127.0.0.1"


def test_the_environment_is_read_when_settings_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
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
        ("WEB_THREADS", "1"),
        ("LOG_FORMAT", "xml"),
    ],
)
def test_nonsense_is_refused_at_the_start(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ValidationError):
        Settings()


def test_default_augmentations_may_be_chosen_and_may_be_none(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings().default_augmentations == DEFAULT_AUGMENTATIONS
    monkeypatch.setenv("VISION_AUGMENTATIONS", '["rotate"]')
    assert Settings().default_augmentations == ("rotate",)
    monkeypatch.setenv("VISION_AUGMENTATIONS", "[]")
    assert Settings().default_augmentations == ()


def test_an_image_number_fits_into_its_id() -> None:
    with pytest.raises(ValidationError):
        Settings().limits.model_validate({"max_images": 65_536})
