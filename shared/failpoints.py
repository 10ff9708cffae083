"""Failpoints: named points in the processing of an image at which a fault test can end or freeze the process.

No setting and no environment variable installs a hook. The fault tests put their own ``sitecustomize`` module on the
path of every process that they start, and that module installs a hook when ``shared.failpoints`` is imported.
"""

from collections.abc import Callable

_hook: Callable[[str], None] | None = None


def install(hook: Callable[[str], None] | None) -> None:
    """Install a hook that is called with the name of every failpoint that is reached; None removes the hook."""
    global _hook  # noqa: PLW0603 -- there is one hook per process
    _hook = hook


def reach(name: str) -> None:
    """Call the installed hook, if there is one, with the name of the failpoint that the process has reached."""
    if _hook is not None:
        _hook(name)
