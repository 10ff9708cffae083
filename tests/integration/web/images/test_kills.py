"""Processes that are killed in the middle of a deletion or of a move: it ends whole, once, and leaves no file."""

import http.client
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from scripts.local.installation import ROOT
from shared import settings
from shared.bootstrap import open_stores
from shared.ledger import audit, page_index, sums, turns
from shared.settings import Settings
from shared.storage.blob_keys import image_prefix, original_key, spool_key
from shared.storage.local_blobs import LocalBlobs
from shared.storage.mongo import Db
from tests.faults import programs
from tests.faults.fault_plan import FaultPlan
from tests.support.gunicorn_front import WebFront, run_web_front
from tests.support.ledger import utc_now
from tests.support.service_stack import wait_until
from tests.support.web_client import image_payload, make_image
from worker.sweep.sweep import Sweep

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@dataclass(frozen=True, slots=True)
class Front:
    """A web front whose processes a plan kills, and its database and blobs."""

    web: WebFront
    plan: FaultPlan
    db: Db
    blobs: LocalBlobs
    blobs_root: Path
    sweep: Sweep

    def send(self, method: str, path: str, body: Any = None) -> int | None:
        """Send a request, and return the status of the response; None if the connection breaks."""
        with closing(http.client.HTTPConnection("127.0.0.1", self.web.port, timeout=60)) as connection:
            try:
                connection.request(method, path, json.dumps(body), {"Content-Type": "application/json"})
                return connection.getresponse().status
            except (http.client.HTTPException, OSError):
                return None

    def send_until(self, method: str, path: str, body: Any, statuses: set[int]) -> None:
        """Repeat a request, as clients do, until it has one of the statuses. A killed transaction holds its locks for 15 s."""
        wait_until(lambda: self.send(method, path, body) in statuses, 180, f"{method} is answered")

    def upload(self) -> tuple[str, str]:
        """Upload two images, and return their ids."""
        body = [image_payload(make_image(at)) for at in range(2)]
        wait_until(lambda: self.send("POST", "/upload_image_batch", body) == 202, 60, "the upload is accepted")
        (batch,) = self.db.batches.find({"listed": True}, {"_id": 1})
        turns.repair(self.db)
        return f"{batch['_id']}0000", f"{batch['_id']}0001"

    def write_files(self, image_id: str) -> None:
        """Finish an image with its files."""
        self.blobs.write(original_key(image_id, "jpg"), [make_image()])
        self.blobs.write(f"{image_prefix(image_id)}/1/thumb.jpg", [make_image()])
        self.blobs.publish(image_prefix(image_id), "1")
        self.db.images.update_one({"_id": image_id}, {"$set": {"status": "done", "work.fence": 1}})

    def clean_up(self) -> None:
        """Do what the sweep does after a deletion, at once and after the longest lease."""
        self.sweep.tick()
        self.db.images.update_many({"status": "deleting"}, {"$set": {"deleting_at": utc_now() - timedelta(hours=1)}})
        time.sleep(0.02)  # longer than the interval of the clean-ups
        self.sweep.tick()

    def files_of(self, image_id: str) -> list[str]:
        """Return the names of what is left of the files of an image."""
        folder = self.blobs_root / image_prefix(image_id)
        return [path.name for path in (*folder.parent.glob(f"{folder.name}*"), *folder.rglob("*"))]


@pytest.fixture
def front(mongo: settings.Mongo, db: Db, tmp_path: Path) -> Iterator[Front]:
    plan = FaultPlan(tmp_path / "plan")
    blobs = LocalBlobs(tmp_path / "blobs")
    of_sweep = Settings(mongo=mongo, blobs=settings.Blobs(root=tmp_path / "blobs", min_free_bytes=0), redis=settings.Redis(url="redis://127.0.0.1:1/0")).model_copy(
        update={"sweep": settings.Sweep(interval_s=240, clean_interval_s=0.01, orphan_age_s=3600)}
    )
    with run_web_front(mongo, tmp_path, **programs.environment(plan)) as web:
        stores = open_stores(of_sweep, app="test", db=db, blobs=blobs)
        yield Front(web, plan, db, blobs, tmp_path / "blobs", Sweep(stores))


def assert_balanced(db: Db) -> None:
    assert sums.count_missing(audit.balance(db)) == 0
    page_index.maintain(db, now=utc_now() + timedelta(seconds=61))
    assert page_index.recount(db, 1000) == 0


@pytest.mark.parametrize("point", ["10-image-deletion-uncommitted", "10-image-deletion-committed", "10-image-files-deleted"])
def test_a_deletion_whose_web_process_is_killed_ends_whole_and_once(front: Front, point: str) -> None:
    first, second = front.upload()
    front.write_files(first)
    front.write_files(second)
    front.plan.kill_at(point)
    assert front.send("DELETE", f"/images/{first}") is None
    assert front.plan.killed() == [point]
    if point == "10-image-deletion-uncommitted":
        assert (front.db.images.find_one({"_id": first}) or {})["status"] == "done"
        front.send_until("DELETE", f"/images/{first}", None, {204})
    else:
        front.send_until("DELETE", f"/images/{first}", None, {404})
    front.clean_up()
    assert front.files_of(first) == []
    assert front.files_of(second)
    assert [image["_id"] for image in front.db.images.find()] == [second]
    (batch,) = front.db.batches.find()
    assert (batch["total"], batch["status"], batch["counts"]["done"]) == (1, "done", 1)
    assert (front.db.ledger.find_one({}) or {})["deleted"] == 1
    assert_balanced(front.db)


@pytest.mark.parametrize("point", ["11-image-move-uncommitted", "11-image-move-committed"])
def test_a_move_whose_web_process_is_killed_ends_whole_and_once(front: Front, point: str) -> None:
    first, _ = front.upload()
    page_index.maintain(front.db, now=utc_now() + timedelta(seconds=61))
    front.db.tag_counts.insert_one({"_id": "t:north", "tag": "t", "store": "north", "n": 1})
    front.db.images.update_one({"_id": first}, {"$set": {"tags": [{"id": "t", "by": None, "at": utc_now()}]}})
    front.plan.kill_at(point)
    assert front.send("PATCH", f"/images/{first}", {"store_name": "south"}) is None
    assert front.plan.killed() == [point]
    is_moved = point == "11-image-move-committed"
    assert (front.db.images.find_one({"_id": first}) or {})["store_name"] == ("south" if is_moved else "north")
    assert (front.db.batches.find_one({}) or {})["stores"] == (["north", "south"] if is_moved else ["north"])
    assert_balanced(front.db)
    front.send_until("PATCH", f"/images/{first}", {"store_name": "south"}, {200})
    assert (front.db.images.find_one({"_id": first}) or {})["revision"] == 1
    assert (front.db.batches.find_one({}) or {})["stores"] == ["north", "south"]
    assert {row["store"]: row["n"] for row in front.db.tag_counts.find()} == {"north": 0, "south": 1}
    assert_balanced(front.db)
    front.sweep.tick()
    assert {turn["store"] for turn in front.db.store_turns.find({"pending": True})} == {"north", "south"}


@pytest.mark.parametrize("point", ["5-original-kept", "5-variants-written", "6-finished"])
def test_an_image_whose_worker_is_killed_is_deleted_with_all_its_files(front: Front, point: str) -> None:
    first, second = front.upload()
    front.plan.kill_at(point)
    worker = subprocess.run([sys.executable, "-c", programs.WORKER], cwd=ROOT, env=front.web.environment, timeout=300, check=False, capture_output=True)
    assert (worker.returncode, front.plan.killed()) == (-9, [point]), worker.stderr
    assert front.files_of(first)
    assert front.send("DELETE", f"/images/{first}") == 204
    assert front.files_of(first) == []
    assert front.send("DELETE", f"/images/{second}") == 204
    front.clean_up()
    front.db.batches.update_many({}, {"$set": {"deleting_at": utc_now() - timedelta(hours=1)}})
    time.sleep(0.02)
    front.sweep.tick()
    assert front.files_of(second) == []
    assert front.blobs.stat(spool_key(first[:32])) is None
    assert (front.db.images.count_documents({}), front.db.batches.count_documents({})) == (0, 0)
    assert audit.balance(front.db) == {"received": 2, "done": 0, "failed": 0, "cancelled": 0, "pending": 0, "deleted": 2}
