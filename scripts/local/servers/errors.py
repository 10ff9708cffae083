"""The error that all modules of the embedded servers raise."""


class Unusable(RuntimeError):
    """A server cannot run on this machine, or ended while starting.

    The message is one line with the cause and, if known, the remedy.
    """
