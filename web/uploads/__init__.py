"""Validate, store and commit the batches that clients upload."""
