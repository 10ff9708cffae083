"""``scripts/admin``: commands for operators. In containers, they are run with ``python -m scripts.administration``."""
