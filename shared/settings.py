"""Every setting, grouped, read from the environment and from the files of ``SECRETS_DIR``.

Built in main functions, never at import, but for the two modules that another program imports as its configuration: ``worker/entrypoints/images.py`` and ``web/server/gunicorn_conf.py``.
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
One = TypeVar("One")


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _listed(variable: str, given: object, one: Callable[[str], One], like: str) -> tuple[One, ...]:
    """Read a JSON list here: elsewhere nothing would say what to write instead."""
    try:
        listed = json.loads(given) if isinstance(given, str) else given
        if not isinstance(listed, list | tuple):
            raise TypeError("it is no list")
        return tuple(one(str(each)) for each in listed)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{variable} must be a JSON list like {like}: {error}") from None


class SecretFiles(SecretsSettingsSource):
    """Files named like a variable, in lower case: ``/run/secrets/mongodb_url``. What cannot be read is an error.

    pydantic-settings only warns of a folder that is missing and of a secret that is a folder, which is what a mount makes of a
    file that is not there: the service would go on with the default.
    """

    def __call__(self) -> dict[str, Any]:
        """Read them.

        :raises SettingsError: the folder, or a file of it that is asked for, cannot be read.
        """
        with warnings.catch_warnings(action="error"):
            try:
                return super().__call__()
            except (UserWarning, OSError) as error:
                raise SettingsError("SECRETS_DIR") from error


class Group(BaseSettings):
    """Base of the groups: a variable wins over a file of ``SECRETS_DIR``, an empty one is none, unknown ones are somebody else's."""

    model_config = SettingsConfigDict(extra="ignore", frozen=True, env_ignore_empty=True)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 -- there is no such file
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 -- SecretFiles is in its place
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Name the sources, the first one wins."""
        return init_settings, env_settings, SecretFiles(settings_cls, os.environ.get("SECRETS_DIR") or None)


class Mongo(Group):
    """MongoDB: the truth. ``MONGODB_URL``, ``MONGODB_DATABASE``."""

    model_config = SettingsConfigDict(env_prefix="MONGODB_", extra="ignore", frozen=True)
    url: str = Field("mongodb://127.0.0.1:27017/?replicaSet=shelfsight", min_length=1)
    database: str = "shelfsight"
    connect_timeout_s: float = 2.0
    socket_timeout_s: float = Field(30.0, description="An answer that takes longer is taken for a lost server.")
    server_selection_timeout_s: float = Field(3.0, description="How long a call waits for a primary before it is 503.")
    commit_deadline_s: float = Field(5.0, description="Limit of one commit transaction, retries included.")
    query_deadline_s: float = Field(10.0, description="Limit of one listing, kept by the server.")


class Redis(Group):
    """Redis: the doorbell. ``REDIS_URL``."""

    model_config = SettingsConfigDict(env_prefix="REDIS_", extra="ignore", frozen=True)
    url: str = Field("redis://127.0.0.1:6379/0", min_length=1)


class Blobs(Group):
    """Where bytes lie. ``BLOBS_ROOT``, ``BLOBS_MIN_FREE_BYTES``."""

    model_config = SettingsConfigDict(env_prefix="BLOBS_", extra="ignore", frozen=True)
    root: Path = Path("data/blobs")
    min_free_bytes: int = Field(1024 * MIB, ge=0, description="Watermark: below it (and what the backlog will still grow to) uploads are 507.")
    growth: float = Field(2.0, ge=0, description="Bytes that a waiting image's results will still need, per byte of its original.")


class Limits(Group):
    """What an upload may be; shown at ``GET /limits``."""

    model_config = SettingsConfigDict(env_prefix="LIMITS_", extra="ignore", frozen=True)
    max_body_bytes: int = Field(64 * MIB, gt=0)
    max_images: int = Field(1000, gt=0, le=65_000)
    max_image_bytes: int = Field(20 * MIB, gt=0)
    max_pixels: int = Field(50_000_000, gt=0)
    max_values: int = Field(200_000, gt=0, description="Values in a JSON body. Each may take fifty times its bytes in memory.")
    max_bytes_in_flight: int = Field(256 * MIB, gt=0, description="Inflated bytes of all uploads in flight in a web process; more is 429.")


class Web(Group):
    """The HTTP side. ``PUBLIC_URL`` and ``OPEN_BEHIND_LOOPBACK_PROXY`` stand alone; the rest is ``WEB_...``."""

    model_config = SettingsConfigDict(env_prefix="WEB_", extra="ignore", frozen=True, populate_by_name=True)
    host: str = "127.0.0.1"
    port: int = 5000
    threads: int = Field(16, ge=4)
    workers: int = Field(2, ge=1, description="Web processes.")
    body_patience_s: int = Field(30, gt=0, description="A body that stalls for so long is refused: it holds a thread.")
    public_url: str = Field("", validation_alias="PUBLIC_URL")
    open_behind_loopback_proxy: bool = Field(default=False, validation_alias="OPEN_BEHIND_LOOPBACK_PROXY")
    trusted_proxies: Annotated[tuple[Network, ...], NoDecode] = Field(
        (), description="JSON list of addresses and networks whose X-Forwarded-For and X-Forwarded-Proto are believed."
    )

    drain_file: Path | None = Field(None, description="While this file exists, /readyz says no: nothing new should be sent here.")

    @field_validator("trusted_proxies", mode="before")
    @classmethod
    def _networks(cls, given: object) -> tuple[Network, ...]:
        return _listed("WEB_TRUSTED_PROXIES", given, ipaddress.ip_network, '["10.0.0.5", "172.16.0.0/12", "fd00::/8"]')

    @model_validator(mode="after")
    def _loopback_only(self) -> "Web":
        if not self.open_behind_loopback_proxy and not _is_loopback(self.host):
            raise ValueError(
                f"WEB_HOST={self.host} is refused: until accounts exist the web binds loopback only. For a proxy that is itself "
                "published on loopback set OPEN_BEHIND_LOOPBACK_PROXY=1."
            )
        return self


class Worker(Group):
    """How a worker works. ``WORKER_...``."""

    model_config = SettingsConfigDict(env_prefix="WORKER_", extra="ignore", frozen=True)
    processes: int = Field(1, ge=1, description="Pool children of one worker; one per GPU, a few on CPU.")
    claim_size: int = Field(32, ge=1, le=256, description="Most images of one claim; what one task fetches, computes and writes at once.")
    lease_s: float = Field(30.0, gt=0, description="Life of a claim without a renewal; renewed at a third of it.")
    soft_limit_s: float = Field(300.0, gt=0)
    hard_limit_s: float = Field(330.0, gt=0)
    child_memory_bytes: int = Field(2048 * MIB, gt=0, description="Memory that a suspicious picture may take in the helper, beside what is loaded there.")
    most_memory_bytes: int = Field(3072 * MIB, gt=0, description="A pool child that ever held more is replaced at the end of its task.")
    child_timeout_s: float = Field(30.0, gt=0, description="Limit of one such look. One that computes for four fifths of it is not tried again.")
    task_s: float = Field(4.0, gt=0, description="After this long a task takes no further claim and rings again, so that a stop finds it at its end.")


class Sweep(Group):
    """How often the sweep looks. ``SWEEP_...``."""

    model_config = SettingsConfigDict(env_prefix="SWEEP_", extra="ignore", frozen=True)
    interval_s: float = Field(2.0, gt=0)
    orphan_age_s: float = Field(600.0, gt=0, description="A spool that no batch refers to is deleted when it is older.")
    clean_interval_s: float = Field(30.0, gt=0, description="Pause between two clean-ups of files.")


class Vision(Group):
    """What is looked for. ``VISION_...``."""

    model_config = SettingsConfigDict(env_prefix="VISION_", extra="ignore", frozen=True)
    augmentations: tuple[str, ...] | None = Field(None, description="Names done by default; JSON list. Unset: the four of the contract.")
    threads: int = Field(1, ge=1, description="Threads of the model in one process; as many decode and encode beside it.")
    in_turn: bool = Field(
        default=False, description="A single thread decodes and draws in turn with a model on a CPU: right where there are as many workers as cores."
    )
    model: str = Field("grocery", min_length=1, description="The detector: grocery, a builder of torchvision.models.detection, or the path of a checkpoint.")
    device: Literal["cpu", "cuda"] | None = Field(None, description="Unset: a GPU where there is one.")
    precision: Literal["auto", "full", "half"] = Field("auto", description="auto: half where the device has it and the model loses at most 0.5 points of mAP50.")

    @field_validator("augmentations")
    @classmethod
    def _known(cls, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        unknown = set(names or ()) - set(AUGMENTATIONS)
        if unknown:
            raise ValueError(f"unknown augmentations: {', '.join(sorted(unknown))}; known are: {', '.join(AUGMENTATIONS)}")
        return names


class Fetch(Group, FetchRules):
    """What is fetched from somebody else's URL, and within which limits. ``FETCH_...``; each process counts for itself."""

    # The lists are decoded by the validators below: pydantic-settings' own error would not say what to write.
    model_config = SettingsConfigDict(env_prefix="FETCH_", extra="ignore", frozen=True, enable_decoding=False)

    @field_validator("blocked_domains", "allowed_domains", "permitted_hosts", mode="before")
    @classmethod
    def _names(cls, given: object, info: ValidationInfo) -> tuple[str, ...]:
        return _listed(f"FETCH_{info.field_name}".upper(), given, urls.parse_name, '["example.org", "images.example.net"]')

    @field_validator("blocked_networks", "permitted_networks", mode="before")
    @classmethod
    def _networks(cls, given: object, info: ValidationInfo) -> tuple[Network, ...]:
        return _listed(f"FETCH_{info.field_name}".upper(), given, addresses.parse_network, '["10.0.0.5", "172.16.0.0/12", "fd00::/8"]')


class Inspect(Group):
    """What is looked at by its URL, and how long it is kept. ``INSPECT_...``."""

    model_config = SettingsConfigDict(env_prefix="INSPECT_", extra="ignore", frozen=True)
    max_source_bytes: int = Field(4 * MIB, gt=0, description="Bytes of a picture; a larger one is refused.")
    wait_s: float = Field(10.0, gt=0, description="How long a request waits for its answer before it is 202.")
    fresh_s: float = Field(300.0, gt=0, description="An answer this young is given without asking its source.")
    failed_s: float = Field(10.0, gt=0, description="So long a failure is repeated without trying again.")
    keep_s: float = Field(86_400.0, gt=0, description="Pictures and answers are kept so long after their last use.")
    max_store_bytes: int = Field(1024 * MIB, gt=0, description="Of all these pictures; what was used least recently goes first.")
    per_minute: int = Field(60, gt=0, description="New inspections of one client's address a minute; more are 429.")
    dreams_per_minute: int = Field(6, gt=0, description="Of these with a dream, which takes seconds of a whole core.")
    max_pending: int = Field(16, gt=0, description="Inspections that one client began and that are not done; more are 429.")
    max_waiting: int = Field(1000, gt=0, description="Inspections that wait; more are 429.")
    at_once: int = Field(32, gt=0, description="Inspections that the inspector works on at the same time.")
    lease_s: float = Field(30.0, gt=0, description="Life of the inspector's claim without a renewal.")


class Telemetry(Group):
    """``LOG_LEVEL``, ``LOG_FORMAT``."""

    model_config = SettingsConfigDict(env_prefix="LOG_", extra="ignore", frozen=True)
    level: str = "INFO"
    format: Literal["json", "text"] = "json"


class Settings(BaseModel):
    """All groups. ``Settings()`` reads the environment once, at the moment it is made."""

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
    log: Telemetry = Field(default_factory=Telemetry)

    @cached_property
    def default_augmentations(self) -> tuple[str, ...]:
        """Names of the augmentations that an upload gets when it names none."""
        return DEFAULT_AUGMENTATIONS if self.vision.augmentations is None else self.vision.augmentations


def read() -> Settings:
    """Read the settings of a program that starts; a wrong one ends it with a sentence on standard error."""
    try:
        return Settings()
    except (ValidationError, SettingsError) as error:
        sys.exit(f"error: {explain(error)}")


def explain(error: ValidationError | SettingsError) -> str:
    """Say in a sentence which setting is wrong and why, without its value: it may be a secret."""
    if isinstance(error, SettingsError):
        return f"a setting cannot be read: {error}{f': {error.__cause__}' if error.__cause__ else ''}"
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"]))
    return f"a setting of {error.title} is wrong: {f'{where}: ' if where else ''}{first['msg']}"
