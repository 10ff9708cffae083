"""The progress of a download."""

from collections.abc import Callable

Progress = Callable[[int, int], None]
"""Called with the bytes received so far, and with the bytes of the whole file (0 if unknown)."""
