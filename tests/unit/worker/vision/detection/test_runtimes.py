"""Effects of a runtime on its process."""

import os
import subprocess
import sys
from pathlib import Path

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


_LOAD_AND_PREDICT = """
import sys

events = set()
sys.addaudithook(lambda name, _: events.add(name))
import numpy as np
from worker.vision.detection import detect

detect.load(device="cpu").predict([np.zeros((480, 640, 3), np.uint8)])
print(sorted(events & {"socket.connect", "socket.getaddrinfo", "socket.sendto", "urllib.Request", "os.fork", "os.forkpty", "os.posix_spawn", "os.exec"}))
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


@pytest.mark.slow
def test_nothing_is_sent_and_no_process_is_started_when_a_model_is_loaded(tmp_path: Path) -> None:
    """OpenVINO's telemetry sends the name of the converted framework, and other data, to a server of another company."""
    pytest.importorskip("openvino")
    environment = {name: value for name, value in os.environ.items() if name != "CI"} | {"HOME": str(tmp_path)}
    command = [sys.executable, "-W", "ignore", "-c", _LOAD_AND_PREDICT]
    process = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert (process.returncode, process.stdout) == (0, "[]\n"), process.stderr
    assert list(tmp_path.iterdir()) == []
