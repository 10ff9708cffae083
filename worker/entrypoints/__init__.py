"""The programs of the worker side. Run each with ``python -m worker.entrypoints.<name>``."""
