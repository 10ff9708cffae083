"""Import torchvision without torch's compiler. Imported before torchvision wherever that is.

One line of torchvision (in ``ops.roi_align``, for deterministic CUDA) imports all of ``torch._dynamo``: half of a worker's start and a tenth of its
memory, for what nothing here calls. While torchvision is imported something light stands in its place; whoever calls it gets the compiler's own answer.
"""

import importlib
import sys
from types import ModuleType
from typing import Final

import torch  # noqa: F401 -- it must be whole before a part of it is replaced

_NAMES: Final = ("torch._dynamo", "torch._dynamo.utils")


def _is_compile_supported(device: str) -> bool:
    from torch._dynamo.utils import is_compile_supported  # noqa: PLC0415 -- what is avoided until somebody asks

    return bool(is_compile_supported(device))


def _of_the_compiler(name: str) -> object:
    """Give what else a torchvision may import from there: then the compiler is imported after all."""
    if name.startswith("__"):  # what the import itself asks of every module
        raise AttributeError(name)
    for module in _NAMES:
        sys.modules.pop(module, None)
    return getattr(importlib.import_module(_NAMES[-1]), name)


def _import_torchvision() -> None:
    package, utils = (ModuleType(name) for name in _NAMES)
    utils.is_compile_supported = _is_compile_supported  # type: ignore[attr-defined]
    utils.__getattr__ = _of_the_compiler  # type: ignore[method-assign]
    sys.modules.update(zip(_NAMES, (package, utils), strict=True))
    try:
        import torchvision  # noqa: F401, PLC0415 -- within the exchange
    finally:
        for name, stand_in in ((package.__name__, package), (utils.__name__, utils)):
            if sys.modules.get(name) is stand_in:
                del sys.modules[name]


if not {"torchvision", *_NAMES} & sys.modules.keys():
    _import_torchvision()
