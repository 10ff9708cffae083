"""What prepares a deployment in containers; docs/containers.md says how it fits together."""
