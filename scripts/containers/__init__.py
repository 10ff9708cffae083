"""Shelfsight in containers: the rolling restart, and the tests of a whole deployment.

What runs on a server (``scripts/roll``) needs the standard library only.
"""
