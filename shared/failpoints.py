"""Named points in the processing of an image at which a fault test may end or freeze the process.

No setting and no environment variable installs a hook. The fault tests start every process with their own ``sitecustomize`` on
its path, which installs one when this module is imported.
"""

from collections.abc import Callable

_hook: Callable[[str], None] | None = None


def install(hook: Callable[[str], None] | None) -> None:
    """Call ``hook`` with the name of every failpoint reached from now on; None removes it."""
    global _hook  # noqa: PLW0603 -- there is one hook per process
    _hook = hook


def reach(name: str) -> None:
    """Call the hook, if one is installed, with the name of this failpoint."""
    if _hook is not None:
        _hook(name)
