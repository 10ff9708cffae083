"""Programs that a ``FaultPlan`` kills or freezes at a failpoint, for tests that run single processes and not the whole service."""

from typing import Final

from scripts.local.installation import ROOT
from tests.faults.fault_plan import VARIABLE, FaultPlan

_INJECTED: Final = ROOT / "tests" / "faults" / "injected"
WORKER: Final = """
import time
import uuid
from shared.bootstrap import open_stores
from shared.settings import Settings
from worker.images.pipeline import ImagePipeline
from worker.vision.detection import detect
pipeline = ImagePipeline(open_stores(Settings(), app="test"), detect.load(), uuid.uuid4().hex)
pipeline.run(lambda: None, 600)
time.sleep(2)
pipeline.stop()
"""
"""A worker that processes images until none is claimable. Within two seconds, its thread settles the spools of closed batches."""
SWEEP: Final = """
import time
from shared.bootstrap import open_stores
from shared.settings import Settings
from worker.sweep.sweep import Sweep
sweep = Sweep(open_stores(Settings(), app="test"))
for _ in range(3):
    sweep.tick()
    time.sleep(1.1)
"""
"""A sweep process with three ticks, in each of which all its parts are due if the interval of the clean-ups is a second."""


def environment(plan: FaultPlan) -> dict[str, str]:
    """Return the environment variables with which a Python process of the service follows a plan."""
    return {"PYTHONPATH": f"{_INJECTED}:{ROOT}", VARIABLE: str(plan.folder)}
