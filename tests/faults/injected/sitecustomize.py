# ruff: noqa: INP001 -- not a package: Python finds the module by its name alone
"""Runs at the start of every Python process of a stack under test, and plants the plan's faults in it.

Python imports a module of this name by itself when it lies on PYTHONPATH; only ``tests/faults/faulty_watchdog.py`` puts it there. So pool
children and helpers, which are fresh interpreters, get the faults too, and the services know nothing of them.
"""

import hashlib
import importlib.util
import os
import signal
import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_PLAN = os.environ.get("SHELFSIGHT_FAULT_PLAN", "")


def _hook(name: str) -> None:
    point = name.split(":", 1)[0]
    if _taken("kill", point):
        with open(f"{_PLAN}/killed", "a") as file:  # noqa: PTH123 -- as little as possible between the point and the death
            file.write(f"{point}\n")
        os.kill(os.getpid(), signal.SIGKILL)
    if _taken("stop", point):
        path = f"{_PLAN}/stopped/{point}"
        with open(f"{path}.new", "w") as file:  # noqa: PTH123 -- as above
            file.write(str(os.getpid()))
        os.replace(f"{path}.new", path)  # noqa: PTH105 -- as above
        os.kill(os.getpid(), signal.SIGSTOP)


def _taken(kind: str, point: str) -> bool:
    try:
        os.unlink(f"{_PLAN}/{kind}/{point}")  # noqa: PTH108 -- of several processes exactly one succeeds
    except FileNotFoundError:
        return False
    return True


def _graft_points(module: ModuleType) -> None:
    module.install(_hook)


def _graft_poison(module: ModuleType) -> None:
    decode: Callable[..., Any] = module.decode

    def crashing(data: bytes, **options: Any) -> Any:
        if os.path.exists(f"{_PLAN}/poison/{hashlib.sha256(data).hexdigest()}"):  # noqa: PTH110 -- pathlib is not wanted in every process
            os.kill(os.getpid(), signal.SIGSEGV)
        return decode(data, **options)

    module.decode = crashing  # type: ignore[attr-defined]


_GRAFTS: dict[str, Callable[[ModuleType], None]] = {
    "shared.failpoints": _graft_points,
    "worker.vision.imaging": _graft_poison,
}


class _Grafter(MetaPathFinder):
    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:  # noqa: ARG002 -- the import system's signature
        graft = _GRAFTS.pop(name, None)
        if graft is None:
            return None
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.loader is not None
        loader: Any = spec.loader
        run = loader.exec_module

        def run_and_graft(module: ModuleType) -> None:
            run(module)
            graft(module)

        loader.exec_module = run_and_graft
        return spec


if _PLAN:
    sys.meta_path.insert(0, _Grafter())
