"""The programs on the worker side. Run each of them with ``python -m worker.entrypoints.<name>``."""
