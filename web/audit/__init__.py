"""The security log: ``GET /audit``."""
