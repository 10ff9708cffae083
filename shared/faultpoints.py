"""Named places in the way of an image where a fault test may end or freeze the process.

Nothing outside the process reaches this: no setting, no variable. The fault tests start the services through their own
entry module, which installs a hook before it calls the real ``main``.
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
