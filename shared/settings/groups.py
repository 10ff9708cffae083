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
from shared.settings.redis import Redis
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
            not (self.access.is_on and self.web.open_behind_loopback_proxy),
            "ACCESS=on cannot be combined with OPEN_BEHIND_LOOPBACK_PROXY=1 yet, because a proxy that serves the files "
            "itself does not check who may see them",
        )
        return self

    @cached_property
    def default_augmentations(self) -> tuple[str, ...]:
        """Names of the augmentations that are applied if an upload names none."""
        return DEFAULT_AUGMENTATIONS if self.vision.augmentations is None else self.vision.augmentations
