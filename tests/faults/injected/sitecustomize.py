# ruff: noqa: INP001 -- not a package: Python imports the module by its name
"""Inject the faults of the plan into every Python process of a stack under test.

Python imports a module of this name at startup when its folder is on PYTHONPATH. Only ``tests/faults/faulty_watchdog.py`` adds
the folder. Pool children and sandbox children are new interpreters, so they get the faults too, and the services need no code
for them.
"""

import hashlib
import importlib.util
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_PLAN = os.environ.get("SHELFSIGHT_FAULT_PLAN", "")


def _hook(name: str) -> None:
    failpoint = name.split(":", 1)[0]
    if _take("kill", failpoint):
        with open(f"{_PLAN}/killed", "a") as file:  # noqa: PTH123 -- as little code as possible between the failpoint and the kill
            file.write(f"{failpoint}\n")
        os.kill(os.getpid(), signal.SIGKILL)
    if _take("stop", failpoint):
        path = f"{_PLAN}/stopped/{failpoint}"
        with open(f"{path}.new", "w") as file:  # noqa: PTH123 -- as above
            file.write(str(os.getpid()))
        os.replace(f"{path}.new", path)  # noqa: PTH105 -- as above
        # A signal to the process could be handled by another thread, and this one would go on for a moment.
        signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)


def _take(kind: str, failpoint: str) -> bool:
    try:
        os.unlink(f"{_PLAN}/{kind}/{failpoint}")  # noqa: PTH108 -- exactly one of several processes succeeds
    except FileNotFoundError:
        return False
    return True


def _patch_failpoints(module: ModuleType) -> None:
    module.install(_hook)


def _patch_imaging(module: ModuleType) -> None:
    decode: Callable[..., Any] = module.decode
    read_pixel_count: Callable[[bytes], Any] = module.read_pixel_count

    def crashing(data: bytes, **options: Any) -> Any:
        if _is_planned("crash", hashlib.sha256(data).hexdigest()):
            os.kill(os.getpid(), signal.SIGSEGV)
        while _is_planned("hang", hashlib.sha256(data).hexdigest()):
            pass
        return decode(data, **options)

    def hanging(data: bytes) -> Any:
        while _is_planned("hang", hashlib.sha256(data).hexdigest()):
            time.sleep(0.1)
        return read_pixel_count(data)

    module.decode = crashing  # type: ignore[attr-defined]
    module.read_pixel_count = hanging  # type: ignore[attr-defined]


def _patch_model(module: ModuleType) -> None:
    predict: Callable[..., Any] = module.Detector.predict

    def crashing(self: Any, images: list[Any], **options: Any) -> Any:
        for image in images:
            if _is_planned("crash-model", f"{image.shape[1]}x{image.shape[0]}"):
                os.kill(os.getpid(), signal.SIGSEGV)
        return predict(self, images, **options)

    module.Detector.predict = crashing


def _is_planned(kind: str, name: str) -> bool:
    return os.path.exists(f"{_PLAN}/{kind}/{name}")  # noqa: PTH110 -- do not import pathlib in every process


_PATCHES: dict[str, Callable[[ModuleType], None]] = {
    "shared.failpoints": _patch_failpoints,
    "worker.vision.imaging": _patch_imaging,
    "worker.vision.detection.detect": _patch_model,
}


class _PatchingFinder(MetaPathFinder):
    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:  # noqa: ARG002 -- the signature of the import system
        patch = _PATCHES.pop(name, None)
        if patch is None:
            return None
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.loader is not None
        loader: Any = spec.loader
        exec_module = loader.exec_module

        def exec_and_patch(module: ModuleType) -> None:
            exec_module(module)
            patch(module)

        loader.exec_module = exec_and_patch
        return spec


if _PLAN:
    sys.meta_path.insert(0, _PatchingFinder())
