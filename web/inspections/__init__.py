"""Inspect one image, which a client sends as a URL or in the request body."""
