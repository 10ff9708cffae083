"""What a job may still do: the rights that its actor has now, within those with which it was requested."""

from dataclasses import dataclass
from typing import Final

from shared.accounts import principals
from shared.allowed_stores import AllowedStores, intersect_stores, stores_from_list
from shared.jobs import records
from shared.jobs.error_codes import failure
from shared.jobs.progress import HeldJob
from shared.storage.mongo import Db

RIGHTS_LOST: Final = failure("rights_lost")
RIGHTS_REDUCED: Final = failure("rights_reduced")


@dataclass(frozen=True, slots=True)
class JobRights:
    """The stores in which a job may change images now, and whether these are fewer than when it was requested."""

    stores: AllowedStores
    is_limited: bool

    @property
    def is_nothing(self) -> bool:
        """Whether the job may change nothing."""
        return self.stores is not None and not self.stores


def read(db: Db, job: HeldJob) -> JobRights:
    """Return the rights of a job, as they are now.

    :raises StoreAway: when MongoDB does not respond.
    """
    rights = principals.rights_of(db, job.document["actor"])
    wanted = stores_from_list(job.document["stores"])
    scope = job.document["params"].get("scope", records.SCOPES[job.document["kind"]])
    if rights is None or scope not in rights.scopes:
        return JobRights(frozenset(), is_limited=True)
    stores = intersect_stores(wanted, rights.stores)
    return JobRights(stores, is_limited=stores != wanted)
