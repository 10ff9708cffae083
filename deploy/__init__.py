"""Programs that prepare a deployment in containers, described in docs/containers.md."""
