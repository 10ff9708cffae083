"""Records changes of users and keys in the security log."""

import logging
from collections.abc import Mapping

from shared import telemetry
from shared.accounts.audit_events import Detail, Event, EventType
from shared.accounts.audit_log import AuditLog
from shared.accounts.permissions import OPERATOR
from shared.storage.mongo import Db


def record(db: Db, event_type: EventType, target: str, details: Mapping[str, Detail] | None = None) -> None:
    """Record a change that an operator has made. If MongoDB fails, a warning on standard error says so.

    :param target: what was changed, as ``<kind>:<id>``.
    """
    warnings = logging.StreamHandler()
    warnings.setFormatter(logging.Formatter("warning: %(message)s"))
    telemetry.errors.addHandler(warnings)
    try:
        AuditLog(db).record(Event(event_type, actor=OPERATOR, target=target, details=details or {}))
    finally:
        telemetry.errors.removeHandler(warnings)
