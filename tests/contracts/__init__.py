"""Contract tests. There is one suite per protocol, and every implementation of the protocol must pass it."""
