"""Reads all settings, in groups, from environment variables and from the files in ``SECRETS_DIR``.

The main function of a program reads the settings. No module reads them while it is imported, except the modules that
another program imports as its configuration: ``worker/entrypoints/images.py``, ``worker/entrypoints/inspections.py``
and ``web/server/gunicorn_conf.py``.
"""

import ipaddress
import sys
from functools import cached_property
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, Field, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_settings import NoDecode, SettingsConfigDict, SettingsError

from shared.augmentations import AUGMENTATIONS, DEFAULT_AUGMENTATIONS
from shared.fetch import addresses, urls
from shared.fetch.rules import FetchRules
from shared.settings_sources import SettingsGroup, explain, parse_json_list, require

MIB = 1024 * 1024
MIN_TIMEOUT_S: Final = 0.001
"""The minimum of MongoDB's time limits. It counts milliseconds, and takes 0 as no limit."""

Network = IPv4Network | IPv6Network


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Mongo(SettingsGroup):
    """Connection to MongoDB, the system of record. The variables begin with ``MONGODB_``."""

    model_config = SettingsConfigDict(env_prefix="MONGODB_", extra="ignore", frozen=True)
    url: str = Field("mongodb://127.0.0.1:27017/?replicaSet=shelfsight", min_length=1)
    database: str = "shelfsight"
    connect_timeout_s: float = Field(2.0, ge=MIN_TIMEOUT_S)
    socket_timeout_s: float = Field(
        30.0, ge=MIN_TIMEOUT_S, description="Seconds to wait for a response. After that, the connection counts as lost."
    )
    server_selection_timeout_s: float = Field(
        3.0,
        ge=MIN_TIMEOUT_S,
        description="Seconds to wait for a primary. After that, the request is answered with 503.",
    )
    commit_deadline_s: float = Field(
        5.0, ge=MIN_TIMEOUT_S, description="Maximum seconds for one commit transaction, including its retries."
    )
    query_deadline_s: float = Field(
        10.0, ge=MIN_TIMEOUT_S, description="Maximum seconds for one listing; MongoDB enforces this limit."
    )


class Redis(SettingsGroup):
    """Connection to Redis, which holds the wakeups and the request counters. The variables begin with ``REDIS_``."""

    model_config = SettingsConfigDict(env_prefix="REDIS_", extra="ignore", frozen=True)
    url: str = Field("redis://127.0.0.1:6379/0", min_length=1)


class Blobs(SettingsGroup):
    """The blob store and the disk space that it needs. The variables begin with ``BLOBS_``."""

    model_config = SettingsConfigDict(env_prefix="BLOBS_", extra="ignore", frozen=True)
    root: Path = Path("data/blobs")
    min_free_bytes: int = Field(
        1024 * MIB,
        ge=0,
        description="Bytes of disk space to keep free, in addition to the bytes that waiting images still need. If "
        "fewer are free, uploads are answered with 507.",
    )
    growth: float = Field(
        2.0, ge=0, description="Bytes to reserve for the results of a waiting image, for each byte of its original."
    )


class Limits(SettingsGroup):
    """Limits for an upload; ``GET /limits`` returns the first four. The variables begin with ``LIMITS_``."""

    model_config = SettingsConfigDict(env_prefix="LIMITS_", extra="ignore", frozen=True)
    max_body_bytes: int = Field(64 * MIB, gt=0)
    max_images: int = Field(1000, gt=0, le=65_000)
    max_image_bytes: int = Field(20 * MIB, gt=0)
    max_pixels: int = Field(50_000_000, gt=0)
    max_values: int = Field(
        200_000,
        gt=0,
        description="Maximum JSON values in a body. In memory, a value can be fifty times as large as in the body.",
    )
    max_bytes_in_flight: int = Field(
        256 * MIB,
        gt=0,
        description="Maximum decompressed bytes of all uploads in progress in one web process. "
        "More are answered with 429.",
    )


class Web(SettingsGroup):
    """The web processes. The variables begin with ``WEB_``.

    ``PUBLIC_URL`` and ``OPEN_BEHIND_LOOPBACK_PROXY`` are exceptions; they have no prefix.
    """

    model_config = SettingsConfigDict(env_prefix="WEB_", extra="ignore", frozen=True, populate_by_name=True)
    host: str = "127.0.0.1"
    port: int = 5000
    threads: int = Field(16, ge=4, description="Request threads of one web process.")
    workers: int = Field(2, ge=1, description="Number of web processes.")
    body_patience_s: int = Field(
        30,
        gt=0,
        description="Seconds without a new byte after which a request body is refused, because it occupies a thread.",
    )
    public_url: str = Field("", validation_alias="PUBLIC_URL")
    open_behind_loopback_proxy: bool = Field(default=False, validation_alias="OPEN_BEHIND_LOOPBACK_PROXY")
    trusted_proxies: Annotated[tuple[Network, ...], NoDecode] = Field(
        (), description="JSON list of addresses and networks whose X-Forwarded-For and X-Forwarded-Proto are trusted."
    )

    drain_file: Path | None = Field(
        None, description="While this file exists, /readyz is answered with 503, so that a proxy sends no new requests."
    )

    @field_validator("trusted_proxies", mode="before")
    @classmethod
    def _parse_networks(cls, value: object) -> tuple[Network, ...]:
        return parse_json_list(
            "WEB_TRUSTED_PROXIES", value, ipaddress.ip_network, '["10.0.0.5", "172.16.0.0/12", "fd00::/8"]'
        )

    @model_validator(mode="after")
    def _require_loopback(self) -> "Web":
        if not self.open_behind_loopback_proxy and not _is_loopback(self.host):
            raise ValueError(
                f"WEB_HOST={self.host} is not allowed: there are no accounts yet, so the web process listens on "
                "loopback addresses only. Behind a proxy that is itself published on loopback only, set "
                "OPEN_BEHIND_LOOPBACK_PROXY=1."
            )
        return self


class Worker(SettingsGroup):
    """The workers that process batches. The variables begin with ``WORKER_``."""

    model_config = SettingsConfigDict(env_prefix="WORKER_", extra="ignore", frozen=True)
    processes: int = Field(1, ge=1, description="Pool children of one worker: one per GPU, or a few on a CPU.")
    claim_size: int = Field(
        32,
        ge=1,
        le=256,
        description="Maximum number of images in a claim. They are read, processed and stored together. A claim has fewer "
        "images while few are queued, so that every worker gets a share.",
    )
    claim_bytes: int = Field(
        64 * MIB,
        gt=0,
        description="Maximum total bytes of the originals in a claim. A larger image is claimed alone.",
    )
    lease_s: float = Field(
        30.0, gt=0, description="Seconds until a claim expires. A worker renews it after a third of this time."
    )
    soft_limit_s: float = Field(
        300.0, gt=0, description="Seconds after which a task is interrupted and releases its images."
    )
    hard_limit_s: float = Field(330.0, gt=0, description="Seconds after which the process that runs a task is killed.")
    child_memory_bytes: int = Field(
        2048 * MIB,
        gt=0,
        description="Maximum bytes of memory for an image in the sandbox, in addition to the memory for libraries.",
    )
    most_memory_bytes: int = Field(
        3072 * MIB,
        gt=0,
        description="Maximum bytes of memory of a pool child. If it uses more, it is replaced at the end of its task.",
    )
    child_timeout_s: float = Field(
        30.0,
        gt=0,
        description="Maximum seconds for one request to the sandbox. A request that has used four fifths of this time "
        "as CPU time is not retried.",
    )
    task_s: float = Field(
        4.0,
        gt=0,
        description="Seconds after which a task claims no more images, publishes a wakeup and ends. Tasks are short so "
        "that a worker can stop soon.",
    )

    @model_validator(mode="after")
    def _check_time_limits(self) -> "Worker":
        require(
            self.soft_limit_s < self.hard_limit_s,
            "WORKER_HARD_LIMIT_S must be greater than WORKER_SOFT_LIMIT_S, so that a task can release its images "
            "before it is killed",
        )
        require(
            self.task_s < self.soft_limit_s,
            "WORKER_TASK_S must be less than WORKER_SOFT_LIMIT_S, because otherwise every busy task is "
            "interrupted before it ends",
        )
        require(
            self.child_timeout_s < self.soft_limit_s,
            "WORKER_CHILD_TIMEOUT_S must be less than WORKER_SOFT_LIMIT_S, because otherwise a task is interrupted "
            "before the sandbox gives up an image that hangs",
        )
        return self


class Sweep(SettingsGroup):
    """Intervals of the sweep. The variables begin with ``SWEEP_``."""

    model_config = SettingsConfigDict(env_prefix="SWEEP_", extra="ignore", frozen=True)
    interval_s: float = Field(2.0, gt=0, description="Seconds between two runs of the sweep.")
    orphan_age_s: float = Field(600.0, gt=0, description="Seconds after which a spool without a batch is deleted.")
    clean_interval_s: float = Field(30.0, gt=0, description="Seconds between two clean-ups of files.")


class Vision(SettingsGroup):
    """Detection and augmentations. The variables begin with ``VISION_``."""

    model_config = SettingsConfigDict(env_prefix="VISION_", extra="ignore", frozen=True)
    augmentations: tuple[str, ...] | None = Field(
        None,
        description="JSON list of the default augmentations. When unset, the four in the API documentation apply.",
    )
    threads: int = Field(
        1,
        ge=1,
        description="Threads for the model in one process; the same number of other threads decode and encode images.",
    )
    in_turn: bool = Field(
        default=False,
        description="Whether a single thread runs the model (on a CPU) and decodes and encodes images. "
        "Use it if there are as many workers as cores.",
    )
    model: str = Field(
        "grocery",
        min_length=1,
        description="The detector: grocery, a builder of torchvision.models.detection, or the path of a checkpoint.",
    )
    device: Literal["cpu", "cuda"] | None = Field(
        None, description="Device for the model. When unset, a GPU is used if there is one."
    )
    precision: Literal["auto", "full", "half"] = Field(
        "auto",
        description="auto means half if the device supports it and the mAP50 of the model falls by at most 0.5 points.",
    )

    @field_validator("augmentations")
    @classmethod
    def _check_names(cls, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        unknown = set(names or ()) - set(AUGMENTATIONS)
        if unknown:
            raise ValueError(
                f"unknown augmentations: {', '.join(sorted(unknown))}; valid names: {', '.join(AUGMENTATIONS)}"
            )
        return names


class Fetch(SettingsGroup, FetchRules):
    """Rules for fetching images by URL; the limits apply to each process. The variables begin with ``FETCH_``."""

    # The validators below decode the lists, because the error of pydantic-settings would not say what to write.
    model_config = SettingsConfigDict(env_prefix="FETCH_", extra="ignore", frozen=True, enable_decoding=False)

    @field_validator("blocked_domains", "allowed_domains", "permitted_hosts", mode="before")
    @classmethod
    def _parse_names(cls, value: object, info: ValidationInfo) -> tuple[str, ...]:
        return parse_json_list(
            f"FETCH_{info.field_name}".upper(), value, urls.parse_name, '["example.org", "images.example.net"]'
        )

    @field_validator("blocked_networks", "permitted_networks", mode="before")
    @classmethod
    def _parse_networks(cls, value: object, info: ValidationInfo) -> tuple[Network, ...]:
        variable = f"FETCH_{info.field_name}".upper()
        return parse_json_list(variable, value, addresses.parse_network, '["10.0.0.5", "172.16.0.0/12", "fd00::/8"]')


class Inspect(SettingsGroup):
    """Limits and retention times for inspections of single images. The variables begin with ``INSPECT_``."""

    model_config = SettingsConfigDict(env_prefix="INSPECT_", extra="ignore", frozen=True)
    max_source_bytes: int = Field(4 * MIB, gt=0, description="Maximum bytes of an image; a larger image is refused.")
    wait_s: float = Field(
        10.0, gt=0, description="Seconds that a request waits for its result before it is answered with 202."
    )
    fresh_s: float = Field(
        300.0, gt=0, description="Seconds for which a result is reused without a new request to the source."
    )
    failed_s: float = Field(10.0, gt=0, description="Seconds for which a failure is reported without a new attempt.")
    keep_s: float = Field(
        86_400.0, gt=0, description="Seconds for which results and their images are kept after their last use."
    )
    max_store_bytes: int = Field(
        1024 * MIB,
        gt=0,
        description="Maximum total bytes of all kept images; the least recently used images are deleted first.",
    )
    per_minute: int = Field(
        60, gt=0, description="Maximum new inspections per minute and client address; more are answered with 429."
    )
    dreams_per_minute: int = Field(
        6,
        gt=0,
        description="Maximum new inspections with a dream per minute and client address. A dream takes "
        "seconds of CPU time.",
    )
    max_pending: int = Field(
        16, gt=0, description="Maximum unfinished inspections per client address; more are answered with 429."
    )
    max_waiting: int = Field(1000, gt=0, description="Maximum inspections in the queue; more are answered with 429.")
    at_once: int = Field(32, gt=0, description="Maximum number of concurrent inspections in one inspector.")
    lease_s: float = Field(
        30.0, gt=0, description="Seconds until a claim of an inspector expires unless it is renewed."
    )

    @model_validator(mode="after")
    def _check_retention(self) -> "Inspect":
        for name, value in (("INSPECT_FRESH_S", self.fresh_s), ("INSPECT_FAILED_S", self.failed_s)):
            require(
                value <= self.keep_s,
                f"{name} must not be greater than INSPECT_KEEP_S, because a deleted result cannot be reused",
            )
        return self


class Logging(SettingsGroup):
    """Log output. The variables begin with ``LOG_``."""

    model_config = SettingsConfigDict(env_prefix="LOG_", extra="ignore", frozen=True)
    level: str = "INFO"
    format: Literal["json", "text"] = "json"


class Settings(BaseModel):
    """All groups of settings. ``Settings()`` reads the environment once, when it is called."""

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
        require(
            self.fetch.whole_s < self.worker.hard_limit_s,
            "FETCH_WHOLE_S must be less than WORKER_HARD_LIMIT_S, because otherwise a slow source causes the "
            "inspector to be killed",
        )
        require(
            self.sweep.orphan_age_s > self.mongo.commit_deadline_s,
            "SWEEP_ORPHAN_AGE_S must be greater than MONGODB_COMMIT_DEADLINE_S, because otherwise the sweep deletes the "
            "spools of commits in progress",
        )
        return self

    @cached_property
    def default_augmentations(self) -> tuple[str, ...]:
        """Names of the augmentations that are applied if an upload names none."""
        return DEFAULT_AUGMENTATIONS if self.vision.augmentations is None else self.vision.augmentations


def read() -> Settings:
    """Read the settings when a program starts.

    If a setting is invalid, the program exits with an error sentence on standard error.
    """
    try:
        return Settings()
    except (ValidationError, SettingsError) as error:
        sys.exit(f"error: {explain(error)}")
