"""The workers that process batches."""

from pydantic import Field, model_validator
from pydantic_settings import SettingsConfigDict

from shared.settings.group import SettingsGroup
from shared.settings.values import MIB, require


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
