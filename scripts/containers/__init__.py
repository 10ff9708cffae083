"""Tools for Shelfsight in containers: the rolling restart, and the tests for a whole deployment.

``scripts/roll`` runs on servers, so its modules import only Python's standard library.
"""
