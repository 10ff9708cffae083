"""Uploads: validate a batch, store it and commit it."""
