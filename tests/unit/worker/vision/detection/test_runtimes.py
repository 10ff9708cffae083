"""Effects of a runtime on its process."""

import subprocess
import sys

import pytest

from tests.support.paths import ROOT

_LOAD_AND_RELEASE_MODELS = """
import faulthandler, gc, os, signal
from worker.vision.detection import detect

faulthandler.enable()  # as pytest does; Celery's time limits are signals as well
signal.signal(signal.SIGUSR1, lambda *_: print("handled"))
first, second = detect.load(device="cpu"), detect.load(device="cpu")
del first
gc.collect()
del second
gc.collect()
os.kill(os.getpid(), signal.SIGUSR1)
print("alive")
"""


@pytest.mark.slow
def test_signals_are_handled_after_models_were_released_in_any_order() -> None:
    """Each OpenVINO core installs a signal stack in the thread that creates it.

    It unmaps the stack when it is destroyed, even if it is in use.
    """
    pytest.importorskip("openvino")
    command = [sys.executable, "-W", "ignore", "-c", _LOAD_AND_RELEASE_MODELS]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert (process.returncode, process.stdout.split()) == (0, ["handled", "alive"]), process.stderr
