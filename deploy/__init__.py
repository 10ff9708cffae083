"""Programs that prepare a deployment in containers; see docs/containers.md."""
