"""Batches: list, show and delete them."""
