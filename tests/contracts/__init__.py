"""Contract tests: one suite per protocol, which every implementation must pass."""
