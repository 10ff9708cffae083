"""All settings, in groups, read from environment variables and from the files in ``SECRETS_DIR``.

Main functions build them; no module builds them at import, except those that another program imports as its configuration:
``worker/entrypoints/images.py``, ``worker/entrypoints/inspections.py`` and ``web/server/gunicorn_conf.py``.
"""

import ipaddress
import json
import os
import sys
import warnings
from collections.abc import Callable
from functools import cached_property
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, Field, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SecretsSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from shared.augmentations import AUGMENTATIONS, DEFAULT_AUGMENTATIONS
from shared.fetch import addresses, urls
from shared.fetch.rules import FetchRules

MIB = 1024 * 1024

Network = IPv4Network | IPv6Network
Item = TypeVar("Item")


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _parse_json_list(variable: str, value: object, parse_item: Callable[[str], Item], example: str) -> tuple[Item, ...]:
    """Parse a JSON list here, because the error of pydantic-settings would not show what to write instead."""
    try:
        items = json.loads(value) if isinstance(value, str) else value
        if not isinstance(items, list | tuple):
            raise TypeError("the value is not a list")
        return tuple(parse_item(str(item)) for item in items)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{variable} must be a JSON list like {example}: {error}") from None


def _require(rule_holds: bool, sentence: str) -> None:  # noqa: FBT001 -- reads like an assertion
    if not rule_holds:
        raise ValueError(sentence)


class SecretFiles(SecretsSettingsSource):
    """Files named like a variable, in lower case: ``/run/secrets/mongodb_url``. A file that cannot be read is an error.

    pydantic-settings only warns about a missing folder and about a secret that is a folder, which is what a mount creates in place
    of a missing file: the service would continue with the default.
    """

    def __call__(self) -> dict[str, Any]:
        """Read the files.

        :raises SettingsError: when the folder, or the file of a setting, cannot be read.
        """
        with warnings.catch_warnings(action="error"):
            try:
                return super().__call__()
            except (UserWarning, OSError) as error:
                raise SettingsError("SECRETS_DIR") from error


class SettingsGroup(BaseSettings):
    """Base class of the groups.

    A variable takes precedence over a file in ``SECRETS_DIR``, an empty variable counts as unset, and unknown variables are ignored.
    """

    model_config = SettingsConfigDict(extra="ignore", frozen=True, env_ignore_empty=True)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 -- no such file is read
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 -- replaced by SecretFiles
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return the sources, the one with the highest precedence first."""
        return init_settings, env_settings, SecretFiles(settings_cls, os.environ.get("SECRETS_DIR") or None)


class Mongo(SettingsGroup):
    """Connection to MongoDB, the system of record. ``MONGODB_...``."""

    model_config = SettingsConfigDict(env_prefix="MONGODB_", extra="ignore", frozen=True)
    url: str = Field("mongodb://127.0.0.1:27017/?replicaSet=shelfsight", min_length=1)
    database: str = "shelfsight"
    connect_timeout_s: float = 2.0
    socket_timeout_s: float = Field(
        30.0, description="Seconds to wait for a response; after that the connection counts as lost."
    )
    server_selection_timeout_s: float = Field(
        3.0, description="Seconds to wait for a primary; after that the request gets a 503."
    )
    commit_deadline_s: float = Field(5.0, description="Seconds for one commit transaction, retries included.")
    query_deadline_s: float = Field(10.0, description="Seconds for one listing; MongoDB enforces it.")


class Redis(SettingsGroup):
    """Connection to Redis, which carries wakeups and counts requests. ``REDIS_URL``."""

    model_config = SettingsConfigDict(env_prefix="REDIS_", extra="ignore", frozen=True)
    url: str = Field("redis://127.0.0.1:6379/0", min_length=1)


class Blobs(SettingsGroup):
    """The blob store and the disk space that it needs. ``BLOBS_...``."""

    model_config = SettingsConfigDict(env_prefix="BLOBS_", extra="ignore", frozen=True)
    root: Path = Path("data/blobs")
    min_free_bytes: int = Field(
        1024 * MIB,
        ge=0,
        description="Bytes that stay free, in addition to what the backlog will still need; below that uploads get a 507.",
    )
    growth: float = Field(
        2.0, ge=0, description="Bytes that the results of a waiting image will still need, per byte of its original."
    )


class Limits(SettingsGroup):
    """Limits of an upload; ``GET /limits`` shows the first four. ``LIMITS_...``."""

    model_config = SettingsConfigDict(env_prefix="LIMITS_", extra="ignore", frozen=True)
    max_body_bytes: int = Field(64 * MIB, gt=0)
    max_images: int = Field(1000, gt=0, le=65_000)
    max_image_bytes: int = Field(20 * MIB, gt=0)
    max_pixels: int = Field(50_000_000, gt=0)
    max_values: int = Field(
        200_000, gt=0, description="JSON values in a body. In memory a value may take fifty times its bytes."
    )
    max_bytes_in_flight: int = Field(
        256 * MIB, gt=0, description="Decompressed bytes of all uploads in flight in one web process; more get a 429."
    )


class Web(SettingsGroup):
    """The web process. ``WEB_...``, and ``PUBLIC_URL`` and ``OPEN_BEHIND_LOOPBACK_PROXY`` without the prefix."""

    model_config = SettingsConfigDict(env_prefix="WEB_", extra="ignore", frozen=True, populate_by_name=True)
    host: str = "127.0.0.1"
    port: int = 5000
    threads: int = Field(16, ge=4, description="Request threads of one web process.")
    workers: int = Field(2, ge=1, description="Number of web processes.")
    body_patience_s: int = Field(
        30, gt=0, description="Seconds without a byte after which a request body is refused, because it holds a thread."
    )
    public_url: str = Field("", validation_alias="PUBLIC_URL")
    open_behind_loopback_proxy: bool = Field(default=False, validation_alias="OPEN_BEHIND_LOOPBACK_PROXY")
    trusted_proxies: Annotated[tuple[Network, ...], NoDecode] = Field(
        (), description="JSON list of addresses and networks whose X-Forwarded-For and X-Forwarded-Proto are trusted."
    )

    drain_file: Path | None = Field(
        None, description="While this file exists, /readyz returns 503, so that a proxy sends no new requests."
    )

    @field_validator("trusted_proxies", mode="before")
    @classmethod
    def _parse_networks(cls, value: object) -> tuple[Network, ...]:
        return _parse_json_list(
            "WEB_TRUSTED_PROXIES", value, ipaddress.ip_network, '["10.0.0.5", "172.16.0.0/12", "fd00::/8"]'
        )

    @model_validator(mode="after")
    def _require_loopback(self) -> "Web":
        if not self.open_behind_loopback_proxy and not _is_loopback(self.host):
            raise ValueError(
                f"WEB_HOST={self.host} is not allowed: there are no accounts yet, so the web process binds only loopback addresses. "
                "Behind a proxy that is itself published on loopback set OPEN_BEHIND_LOOPBACK_PROXY=1."
            )
        return self


class Worker(SettingsGroup):
    """The workers that process batches. ``WORKER_...``."""

    model_config = SettingsConfigDict(env_prefix="WORKER_", extra="ignore", frozen=True)
    processes: int = Field(1, ge=1, description="Pool children of one worker: one per GPU, a few on CPU.")
    claim_size: int = Field(
        32,
        ge=1,
        le=256,
        description="Maximum number of images in a claim, which are read, processed and stored together.",
    )
    lease_s: float = Field(
        30.0, gt=0, description="Seconds until a claim expires without a renewal; it is renewed after a third of them."
    )
    soft_limit_s: float = Field(
        300.0, gt=0, description="Seconds after which a task is interrupted and releases its images."
    )
    hard_limit_s: float = Field(330.0, gt=0, description="Seconds after which the process of a task is killed.")
    child_memory_bytes: int = Field(
        2048 * MIB,
        gt=0,
        description="Bytes that a suspicious image may take in the sandbox, in addition to the libraries loaded there.",
    )
    most_memory_bytes: int = Field(
        3072 * MIB, gt=0, description="A pool child that ever used more bytes is replaced at the end of its task."
    )
    child_timeout_s: float = Field(
        30.0,
        gt=0,
        description="Seconds for one request to the sandbox. One that computes for four fifths of them is not tried again.",
    )
    task_s: float = Field(
        4.0,
        gt=0,
        description="Seconds after which a task claims no more and publishes a wakeup, so that a stop soon finds a task at its end.",
    )

    @model_validator(mode="after")
    def _check_time_limits(self) -> "Worker":
        _require(
            self.soft_limit_s < self.hard_limit_s,
            "WORKER_HARD_LIMIT_S must be greater than WORKER_SOFT_LIMIT_S, so that a task can release its images before it is killed",
        )
        _require(
            self.task_s < self.soft_limit_s,
            "WORKER_TASK_S must be less than WORKER_SOFT_LIMIT_S, or a busy task never ends before it is interrupted",
        )
        _require(
            self.child_timeout_s < self.soft_limit_s,
            "WORKER_CHILD_TIMEOUT_S must be less than WORKER_SOFT_LIMIT_S, or a task is interrupted before a hanging image is given up",
        )
        return self


class Sweep(SettingsGroup):
    """Intervals of the sweep. ``SWEEP_...``."""

    model_config = SettingsConfigDict(env_prefix="SWEEP_", extra="ignore", frozen=True)
    interval_s: float = Field(2.0, gt=0, description="Seconds between two runs.")
    orphan_age_s: float = Field(600.0, gt=0, description="Seconds after which a spool without a batch is deleted.")
    clean_interval_s: float = Field(30.0, gt=0, description="Seconds between two clean-ups of files.")


class Vision(SettingsGroup):
    """Detection and augmentations. ``VISION_...``."""

    model_config = SettingsConfigDict(env_prefix="VISION_", extra="ignore", frozen=True)
    augmentations: tuple[str, ...] | None = Field(
        None, description="JSON list of the default augmentations. Unset: the four of the API documentation."
    )
    threads: int = Field(
        1, ge=1, description="Threads of the model in one process; as many decode and encode beside it."
    )
    in_turn: bool = Field(
        default=False,
        description="A single thread alternates between the model on a CPU and decoding and encoding: right where there are as many workers as cores.",
    )
    model: str = Field(
        "grocery",
        min_length=1,
        description="The detector: grocery, a builder of torchvision.models.detection, or the path of a checkpoint.",
    )
    device: Literal["cpu", "cuda"] | None = Field(None, description="Unset: a GPU where there is one.")
    precision: Literal["auto", "full", "half"] = Field(
        "auto", description="auto: half where the device supports it and the model loses at most 0.5 points of mAP50."
    )

    @field_validator("augmentations")
    @classmethod
    def _check_names(cls, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        unknown = set(names or ()) - set(AUGMENTATIONS)
        if unknown:
            raise ValueError(
                f"unknown augmentations: {', '.join(sorted(unknown))}; known are: {', '.join(AUGMENTATIONS)}"
            )
        return names


class Fetch(SettingsGroup, FetchRules):
    """Rules for fetching images by URL; the limits are per process. ``FETCH_...``."""

    # The validators below decode the lists: the error of pydantic-settings would not say what to write.
    model_config = SettingsConfigDict(env_prefix="FETCH_", extra="ignore", frozen=True, enable_decoding=False)

    @field_validator("blocked_domains", "allowed_domains", "permitted_hosts", mode="before")
    @classmethod
    def _parse_names(cls, value: object, info: ValidationInfo) -> tuple[str, ...]:
        return _parse_json_list(
            f"FETCH_{info.field_name}".upper(), value, urls.parse_name, '["example.org", "images.example.net"]'
        )

    @field_validator("blocked_networks", "permitted_networks", mode="before")
    @classmethod
    def _parse_networks(cls, value: object, info: ValidationInfo) -> tuple[Network, ...]:
        variable = f"FETCH_{info.field_name}".upper()
        return _parse_json_list(variable, value, addresses.parse_network, '["10.0.0.5", "172.16.0.0/12", "fd00::/8"]')


class Inspect(SettingsGroup):
    """Inspections of single images, and how long their results are kept. ``INSPECT_...``."""

    model_config = SettingsConfigDict(env_prefix="INSPECT_", extra="ignore", frozen=True)
    max_source_bytes: int = Field(4 * MIB, gt=0, description="Maximum bytes of an image; a larger one is refused.")
    wait_s: float = Field(10.0, gt=0, description="Seconds that a request waits for its result before it gets a 202.")
    fresh_s: float = Field(300.0, gt=0, description="Seconds that a result is reused without a request to its source.")
    failed_s: float = Field(10.0, gt=0, description="Seconds that a failure is reported again without a new attempt.")
    keep_s: float = Field(
        86_400.0, gt=0, description="Seconds that results and their images are kept after their last use."
    )
    max_store_bytes: int = Field(
        1024 * MIB, gt=0, description="Maximum bytes of all these images; the least recently used are deleted first."
    )
    per_minute: int = Field(60, gt=0, description="New inspections a minute per client address; more get a 429.")
    dreams_per_minute: int = Field(
        6,
        gt=0,
        description="New inspections with a dream a minute per client address; one takes seconds of a whole core.",
    )
    max_pending: int = Field(16, gt=0, description="Unfinished inspections per client address; more get a 429.")
    max_waiting: int = Field(1000, gt=0, description="Inspections in the queue; more get a 429.")
    at_once: int = Field(32, gt=0, description="Concurrent inspections of one inspector.")
    lease_s: float = Field(30.0, gt=0, description="Seconds until an inspector's claim expires without a renewal.")

    @model_validator(mode="after")
    def _check_retention(self) -> "Inspect":
        for name, value in (("INSPECT_FRESH_S", self.fresh_s), ("INSPECT_FAILED_S", self.failed_s)):
            _require(
                value <= self.keep_s,
                f"{name} must not be greater than INSPECT_KEEP_S, because a deleted result cannot be reused",
            )
        return self


class Logging(SettingsGroup):
    """Log output. ``LOG_LEVEL``, ``LOG_FORMAT``."""

    model_config = SettingsConfigDict(env_prefix="LOG_", extra="ignore", frozen=True)
    level: str = "INFO"
    format: Literal["json", "text"] = "json"


class Settings(BaseModel):
    """All groups. ``Settings()`` reads the environment once, when it is called."""

    mongo: Mongo = Field(default_factory=Mongo)
    redis: Redis = Field(default_factory=Redis)
    blobs: Blobs = Field(default_factory=Blobs)
    limits: Limits = Field(default_factory=Limits)
    web: Web = Field(default_factory=Web)
    worker: Worker = Field(default_factory=Worker)
    sweep: Sweep = Field(default_factory=Sweep)
    vision: Vision = Field(default_factory=Vision)
    fetch: Fetch = Field(default_factory=Fetch)
    inspect: Inspect = Field(default_factory=Inspect)
    log: Logging = Field(default_factory=Logging)

    @model_validator(mode="after")
    def _check_groups(self) -> "Settings":
        _require(
            self.fetch.whole_s < self.worker.hard_limit_s,
            "FETCH_WHOLE_S must be less than WORKER_HARD_LIMIT_S, or a slow source ends the inspector",
        )
        return self

    @cached_property
    def default_augmentations(self) -> tuple[str, ...]:
        """Names of the augmentations of an upload that names none."""
        return DEFAULT_AUGMENTATIONS if self.vision.augmentations is None else self.vision.augmentations


def read() -> Settings:
    """Read the settings at the start of a program; an invalid one ends the program with a sentence on standard error."""
    try:
        return Settings()
    except (ValidationError, SettingsError) as error:
        sys.exit(f"error: {explain(error)}")


def explain(error: ValidationError | SettingsError) -> str:
    """Return a sentence that says which setting is wrong and why, without its value, which may be a secret."""
    if isinstance(error, SettingsError):
        return f"a setting cannot be read: {error}{f': {error.__cause__}' if error.__cause__ else ''}"
    first = error.errors()[0]
    field = ".".join(map(str, first["loc"]))
    reason = first["msg"].removeprefix("Value error, ")
    return f"a setting of {error.title} is wrong: {f'{field}: ' if field else ''}{reason}"
