"""All groups of settings together, and the rules that concern several groups."""

from functools import cached_property

from pydantic import BaseModel, Field, model_validator

from shared.augmentations import DEFAULT_AUGMENTATIONS
from shared.settings.access import Access
from shared.settings.blobs import Blobs
from shared.settings.fetch import Fetch
from shared.settings.inspect import Inspect
from shared.settings.limits import Limits
from shared.settings.log import Logging
from shared.settings.mongo import Mongo
from shared.settings.rates import Rates
from shared.settings.redis import Redis
from shared.settings.server_urls import is_open_to_others
from shared.settings.sweep import Sweep
from shared.settings.values import require
from shared.settings.vision import Vision
from shared.settings.web import Web
from shared.settings.worker import Worker


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
    access: Access = Field(default_factory=Access)
    rates: Rates = Field(default_factory=Rates)

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
        require(
            self.web.is_on_loopback or self.access.is_on or self.web.open_behind_loopback_proxy,
            f"WEB_HOST={self.web.host} is not allowed while access is open, because everybody who reaches this address could "
            "do everything. Set SHELFSIGHT_ENV=production or ACCESS=on, so that requests need credentials. Behind a proxy that is itself "
            "published on loopback only, set OPEN_BEHIND_LOOPBACK_PROXY=1",
        )
        for variable, url in (("MONGODB_URL", self.mongo.url), ("REDIS_URL", self.redis.url)):
            require(
                not (self.access.is_production and is_open_to_others(url)),
                f"{variable} names a server on another machine and contains no password, which SHELFSIGHT_ENV=production refuses, because "
                "everybody in that network could read and change the data. Give the server a user with a password, and write them into the URL",
            )
        return self

    @property
    def proxy_fault(self) -> str | None:
        """Why what clients send over HTTPS would be treated as plain HTTP; None if it is not.

        Only the web front has all settings of its proxy, so only there this is an error or a warning.
        """
        if not self.web.public_url.startswith("https://") or self.web.trusted_proxies:
            return None
        return (
            "PUBLIC_URL is an https address, but WEB_TRUSTED_PROXIES is empty, so cookies would not be limited to HTTPS, browsers would not be told to use it (HSTS), "
            "and all clients would share the limits of one address. Set WEB_TRUSTED_PROXIES to the addresses of the proxy with TLS, such as '[\"127.0.0.1\"]' on the same machine"
        )

    @cached_property
    def default_augmentations(self) -> tuple[str, ...]:
        """Names of the augmentations that are applied if an upload names none."""
        return DEFAULT_AUGMENTATIONS if self.vision.augmentations is None else self.vision.augmentations
