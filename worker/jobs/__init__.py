"""Does jobs in parts. ``pipeline`` claims them, and ``kinds`` names the functions in ``shared.catalog`` that do the parts."""
