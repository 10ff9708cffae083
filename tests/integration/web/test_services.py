"""The services of a web process."""

import threading
from pathlib import Path

from shared import settings
from shared.accounts.audit_events import Event
from shared.storage.mongo import Db
from tests.support.service_stack import wait_until
from tests.support.web_client import image_payload, make_client, open_services, post_batch


def test_close_ends_all_threads(mongo: settings.Mongo, db: Db, blobs_root: Path, redis_url: str) -> None:
    earlier = set(threading.enumerate())

    def running() -> set[str]:
        names = {thread.name for thread in set(threading.enumerate()) - earlier}
        return {name for name in names if not name.startswith("pymongo")}  # the test's own client starts such threads too

    web = make_client(mongo, blobs_root, redis_url)
    services = open_services[-1]
    assert post_batch(web, [image_payload()]).status_code == 202
    services.audit_log.count(Event("request.refused"))
    with services.notifications.expect("a"):
        pass
    assert {"wakeups", "refresh", "audit-log", "notifications", "services_0"} <= running()
    open_services.pop().close()
    wait_until(lambda: not running(), what="the end of all threads")
