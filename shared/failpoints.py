"""Named places in the way of an image where a fault test may end or freeze the process.

Nothing of ours reaches this: no setting, no variable. The fault tests start every process with a ``sitecustomize`` of theirs on
its path, which installs a hook when this module is imported.
"""

from collections.abc import Callable

_hook: Callable[[str], None] | None = None


def install(hook: Callable[[str], None] | None) -> None:
    """Call ``hook`` with the name of every place reached from now on."""
    global _hook  # noqa: PLW0603 -- one hook per process is the point
    _hook = hook


def reach(name: str) -> None:
    """Say that a place was reached."""
    if _hook is not None:
        _hook(name)
