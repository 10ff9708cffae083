"""Helpers for the tests of jobs: request jobs, and read them."""

from typing import Any

from shared.allowed_stores import AllowedStores
from shared.jobs import records
from shared.jobs.records import JobOwner
from shared.storage.mongo import Db, Document, run_transaction


def owner_of(account: str = "open", *, actor: str | None = None, by: str | None = None, stores: AllowedStores = None) -> JobOwner:
    """Return who requests a job. The actor of the account ``open`` has all rights."""
    return JobOwner(account, actor or account, by, stores)


def request_job(db: Db, account: str = "open", kind: str = "bulk_tags", stores: AllowedStores = None, **params: Any) -> Document:
    """Queue a job, which by default is about no image, and return it as stored."""
    values = {"add": [], "remove": [], "ids": []} | params
    return run_transaction(db, lambda session: records.create(db, session, kind, owner_of(account, stores=stores), values), 60)
