"""The bulk client ``scripts/upload``."""
