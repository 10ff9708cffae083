"""Shelfsight in containers: replaced while it runs, and tested whole. The standard library is enough for a server's own use."""
