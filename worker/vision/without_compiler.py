"""Import torchvision without importing torch's compiler. A module that uses torchvision must import this module first.

Two lines of torchvision (in ``ops.roi_align``, for deterministic CUDA, and in ``tv_tensors``) import all of
``torch._dynamo``. This import takes half of a worker's start-up time and a tenth of its memory, although the worker never
calls the compiler. Therefore, lightweight stub modules replace ``torch._dynamo`` while torchvision is imported. If a stub
function is called later, the function imports the compiler, calls the original function, and returns the result.
"""

import importlib
import sys
from types import ModuleType
from typing import Final

import torch  # noqa: F401 -- torch must be completely imported before one of its submodules is replaced

_NAMES: Final = ("torch._dynamo", "torch._dynamo.utils")


def _is_compile_supported(device: str) -> bool:
    from torch._dynamo.utils import is_compile_supported  # noqa: PLC0415 -- this is the import that this module defers

    return bool(is_compile_supported(device))


def _disable(function: object, _recursive: object, *, reason: str | None = None) -> object:  # noqa: ARG001 -- the parameters of the original
    """Return a function that must not be compiled, unchanged: nothing is compiled here."""
    return function


def _import_attribute(name: str) -> object:
    """Import the compiler and return one of its attributes.

    This is the fallback for an attribute that has no stub, in case a version of torchvision imports it.
    """
    if name.startswith("__"):  # the import system looks up such names on every module
        raise AttributeError(name)
    for module in _NAMES:
        sys.modules.pop(module, None)
    return getattr(importlib.import_module(_NAMES[-1]), name)


def _import_torchvision() -> None:
    package, utils = (ModuleType(name) for name in _NAMES)
    utils.is_compile_supported = _is_compile_supported  # type: ignore[attr-defined]  # a module object has any attributes
    package.disable = _disable  # type: ignore[attr-defined]  # the same
    utils.__getattr__ = _import_attribute  # type: ignore[method-assign]  # a module's own __getattr__ (PEP 562), not the method
    sys.modules.update(zip(_NAMES, (package, utils), strict=True))
    try:
        import torchvision.tv_tensors  # noqa: F401, PLC0415 -- torchvision must be imported while the stubs are in place
    finally:
        for name, stub in ((package.__name__, package), (utils.__name__, utils)):
            if sys.modules.get(name) is stub:
                del sys.modules[name]


if not {"torchvision", *_NAMES} & sys.modules.keys():
    _import_torchvision()
