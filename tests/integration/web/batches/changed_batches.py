"""A web front, workers and a sweep for one batch, whose processes are killed or frozen while the batch is changed."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
import psutil

from scripts.local.installation import ROOT
from shared import settings
from shared.bootstrap import Stores, open_stores
from shared.ledger import audit, sums, turns
from shared.queue.heartbeats import SWEEP_LEASE
from shared.settings import Settings
from shared.storage.blob_keys import image_prefix, spool_key
from shared.storage.local_blobs import LocalBlobs
from shared.storage.mongo import Db, Document
from tests.faults import programs
from tests.faults.fault_plan import FaultPlan
from tests.faults.readers import Reader
from tests.support.gunicorn_front import WebFront, run_web_front
from tests.support.ledger import expire_leases, finish_earlier
from tests.support.service_stack import wait_until
from tests.support.web_client import image_payload, make_image
from worker.images.pipeline import ImagePipeline
from worker.sweep.sweep import Sweep
from worker.vision.detection.detect import Detector

SENT: Final = (make_image(1, kind="PNG"), make_image(2))
AGAIN: Final = {"only": "all", "augmentations": ["grayscale"]}
"""A request whose result differs from that of the upload."""
OF_REPROCESSING: Final = ("13-reprocessing-chosen", "13-reprocessing-marked", "13-reprocessing-queued", "13-reprocessing-unmarked")
OF_CANCELLING: Final = ("12-cancellation-marked", "12-cancellation-ended")
CHANGES: Final = ("delete batch", "delete image", "move image")
_UNFINISHED: Final = {"open", "cancelling", "reprocessing", "spooled", "unswept"}
_TRIES_S: Final = 120.0


@dataclass
class Scene:
    """One batch of a PNG and a JPEG with the augmentation ``rotate``, and the processes around it.

    The web front has two processes, so that one answers while the other is frozen or being replaced.
    """

    web: WebFront
    plan: FaultPlan
    db: Db
    stores: Stores
    detector: Detector
    root: Path
    batch_id: str = ""
    answers: list[int | None] = field(default_factory=list)
    """The statuses of the requests of ``send_in_background``."""

    @property
    def ids(self) -> list[str]:
        """The ids of the images."""
        return [f"{self.batch_id}000{index}" for index in range(len(SENT))]

    def upload(self) -> None:
        """Upload the batch."""
        self.plan.disarm()
        (self.plan.folder / "killed").unlink(missing_ok=True)
        body = {"images": [image_payload(data) for data in SENT], "augmentations": ["rotate"]}
        response = httpx.post(f"{self.web.url}/upload_image_batch", json=body, timeout=60)
        assert response.status_code == 202, response.text
        self.batch_id = response.json()["batch_id"]
        turns.repair(self.db)

    def send(self, method: str, path: str, body: Any = None) -> int | None:
        """Send a request, and return the status of the response; None if the connection breaks."""
        try:
            response = httpx.request(method, self.web.url + path, content=None if body is None else json.dumps(body), headers={"Content-Type": "application/json"}, timeout=120)
        except httpx.HTTPError:
            return None
        return response.status_code

    def change(self, action: str, body: Any = None) -> int | None:
        """Request to cancel or to reprocess the batch."""
        return self.send("POST", f"/image_batches/{self.batch_id}/{action}", {} if body is None else body)

    @contextmanager
    def frozen_request(self, point: str, action: str, body: Any = None) -> Iterator[None]:
        """Freeze the web process at a failpoint of a request. It continues, and answers, when the ``with`` block ends."""
        self.plan.stop_at(point)
        thread = threading.Thread(target=lambda: self.answers.append(self.change(action, body)))
        thread.start()
        with self.frozen(point):
            yield
        thread.join(_TRIES_S)
        assert not thread.is_alive()

    @contextmanager
    def frozen(self, point: str) -> Iterator[psutil.Process]:
        """Wait until a process is frozen at a failpoint. It continues when the ``with`` block ends."""
        wait_until(lambda: self.plan.stopped(point) is not None, _TRIES_S, f"a process reaches {point}")
        process = psutil.Process(self.plan.stopped(point))
        (self.plan.folder / "stopped" / point).unlink()
        try:
            wait_until(lambda: process.status() == psutil.STATUS_STOPPED, _TRIES_S, "the process is frozen")
            yield process
        finally:
            os.kill(process.pid, signal.SIGCONT)

    def start(self, program: str) -> "subprocess.Popen[bytes]":
        """Start a worker or a sweep process (``tests.faults.programs``)."""
        self.db.leases.delete_many({"_id": SWEEP_LEASE})
        environment = self.web.environment | {"SWEEP_CLEAN_INTERVAL_S": "1", "SWEEP_INTERVAL_S": "30", "LOG_LEVEL": "WARNING"}
        with (self.root / "programs.log").open("ab") as log:
            return subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, env=environment, stdout=log, stderr=log)

    def kill(self, program: str, point: str) -> None:
        """Start a worker or a sweep process that is killed at a failpoint."""
        self.plan.kill_at(point)
        process = self.start(program)
        assert process.wait(300) == -signal.SIGKILL, (self.root / "programs.log").read_text()
        assert self.plan.killed()[-1] == point

    def process(self) -> None:
        """Process all images that can be claimed, by a worker that does not die. Leases of others have expired."""
        expire_leases(self.db, self.ids)
        self.tick()
        self.db.images.update_many({"status": "queued"}, [{"$set": {"work.not_before": "$created_at"}}])
        pipeline = ImagePipeline(self.stores, self.detector, uuid.uuid4().hex)
        try:
            pipeline.run(lambda: None, 600)
        finally:
            pipeline.stop()

    def tick(self) -> None:
        """Do everything that the sweep does in one tick. The lease of any other sweep process has expired."""
        self.db.leases.delete_many({"_id": SWEEP_LEASE})
        Sweep(self.stores).tick()

    def clean_up(self) -> None:
        """Do what the sweep does when no worker can write files of the batch any more."""
        for _ in range(2):  # what is settled in the first tick is cleaned in the second one
            self.finish_earlier()
            self.tick()

    def finish_earlier(self) -> None:
        """Let the longest time pass for which a worker can still write files of a closed batch."""
        finish_earlier(self.db, 3600)

    @contextmanager
    def watched(self, *, deleted: Collection[str] = ()) -> Iterator[None]:
        """Let somebody read all images all the time, each of which has a result. What is shown must always be whole.

        :param deleted: the ids of images that are deleted meanwhile.
        """
        reader = Reader(self.web.url, self.root / "blobs", deleted.__contains__)
        stop = threading.Event()
        thread = threading.Thread(target=reader.run, args=(lambda: self.ids, stop))
        thread.start()
        try:
            wait_until(lambda: reader.problems or reader.read >= len(SENT), 60, "everything is read once")
            yield
            target = reader.read + len(SENT)
            wait_until(lambda: deleted or reader.problems or reader.read >= target, 60, "everything is read once more")
        finally:
            stop.set()
            thread.join(60)
        assert reader.problems == [], reader.problems[:3]

    def images(self) -> list[Document]:
        """Return the documents of the images."""
        return list(self.db.images.find({"batch_id": self.batch_id, "status": {"$ne": "deleting"}}).sort("index", 1))

    def state(self) -> tuple[Any, ...]:
        """Return all that must not change after an interrupted process continues: documents and files."""
        header = self.db.batches.find_one({"_id": self.batch_id}) or {}
        for name in ("checked_at", "sweep_until"):
            header.pop(name, None)
        return header, self.images(), self.folders(), self.links()

    def folders(self) -> list[set[str]]:
        """Return for each image the fences of which there are files."""
        roots = [self.root / "blobs" / image_prefix(image_id) for image_id in self.ids]
        return [{path.name for path in root.glob("*") if path.is_dir() and not path.is_symlink()} for root in roots]

    def links(self) -> list[str | None]:
        """Return for each image the fence whose files are published."""
        found = [self.root / "blobs" / image_prefix(image_id) / "live" for image_id in self.ids]
        return [link.readlink().name if link.is_symlink() else None for link in found]

    def check(self, status: str, augmentations: str | None, *, generation: int, images: int = len(SENT)) -> None:
        """Check that the batch is closed as expected, after the last clean-up of its files, and that nothing is left over.

        :param status: the state of all images.
        :param augmentations: the name of the only augmentation of each image; None if the images have no result.
        """
        found = self.images()
        header = self.db.batches.find_one({"_id": self.batch_id}) or {}
        assert [image["status"] for image in found] == [status] * images
        assert (header["generation"], header["status"], header["total"], header["counts"][status]) == (generation, status, images, images), header
        assert not _UNFINISHED & header.keys(), header
        standing = [self.ids.index(image["_id"]) for image in found]
        shown = [str(image["shown"]["fence"]) if "shown" in image else None for image in found]
        assert [self.folders()[index] for index in standing] == [set() if fence is None else {fence} for fence in shown]
        assert [self.links()[index] for index in standing] == shown
        if augmentations is not None:
            assert [[made["name"] for made in image["augmentations"]] for image in found] == [[augmentations]] * images
        for image in found:
            response = httpx.get(f"{self.web.url}/uploads/{image['_id']}.{image['work']['ext']}", timeout=60)
            assert response.content == SENT[image["index"]]
        assert self.stores.blobs.stat(spool_key(self.batch_id)) is None
        self.check_balance()

    def deleted_by(self, change: str) -> list[str]:
        """Return the ids of the images that a change deletes."""
        return {"delete batch": self.ids, "delete image": self.ids[:1]}.get(change, [])

    def make(self, change: str) -> None:
        """Change the batch otherwise (``CHANGES``)."""
        if change == "delete batch":
            assert self.send("DELETE", f"/image_batches/{self.batch_id}") == 204
        elif change == "delete image":
            assert self.send("DELETE", f"/images/{self.ids[0]}") == 204
        else:
            assert self.send("PATCH", f"/images/{self.ids[0]}", {"store_name": "south"}) == 200

    def check_changed(self, change: str, augmentations: str = "grayscale", generation: int = 1) -> None:
        """Do what ``check`` does after ``make``, for a batch whose images that stand are done."""
        header = self.db.batches.find_one({"_id": self.batch_id}) or {}
        if change == "delete batch":
            assert (self.folders(), self.images()) == ([set(), set()], [])
            assert not _UNFINISHED & header.keys()
            self.check_balance()
            return
        self.check("done", augmentations, generation=generation, images=len(SENT) - (change == "delete image"))
        if change == "delete image":
            assert self.folders()[0] == set()
        else:
            assert header["stores"] == ["north", "south"]

    def check_balance(self) -> None:
        """Check that no image is pending or missing, neither when all are counted nor in what the sweep has counted."""
        counted = audit.balance(self.db)
        assert sums.count_missing(counted) == 0
        assert counted["pending"] == 0
        sums.refresh(self.db, time.monotonic() + 60)
        totals = sums.read_totals(self.db)
        assert totals is not None
        assert totals.counts == counted


@contextmanager
def run_scene(mongo: settings.Mongo, db: Db, folder: Path, detector: Detector) -> Iterator[Scene]:
    """Run the web front until the ``with`` block ends."""
    plan = FaultPlan(folder / "plan")
    of_others = Settings(mongo=mongo, blobs=settings.Blobs(root=folder / "blobs", min_free_bytes=0), redis=settings.Redis(url="redis://127.0.0.1:1/0")).model_copy(
        update={"sweep": settings.Sweep(interval_s=240, clean_interval_s=0.01, orphan_age_s=3600)}
    )
    with run_web_front(mongo, folder, **programs.environment(plan), WEB_WORKERS="2") as web:
        stores = open_stores(of_others, app="test", db=db, blobs=LocalBlobs(folder / "blobs"))
        yield Scene(web, plan, db, stores, detector, folder)
