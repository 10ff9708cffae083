"""What an engine does to the process that it is loaded into."""

import subprocess
import sys

import pytest

from tests.support.paths import ROOT

_MODELS_COME_AND_GO = """
import faulthandler, gc, os, signal
from worker.vision.detection import detect

faulthandler.enable()  # as pytest does; Celery's time limits come as signals, too
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
def test_signals_are_handled_whatever_models_came_and_went() -> None:
    """Each OpenVINO core gives the thread that makes it a stack for signals, and takes it away when it goes, whoever uses it by then."""
    pytest.importorskip("openvino")
    command = [sys.executable, "-W", "ignore", "-c", _MODELS_COME_AND_GO]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert (ended.returncode, ended.stdout.split()) == (0, ["handled", "alive"]), ended.stderr
