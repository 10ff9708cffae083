"""The client ``scripts/upload``, which uploads images in bulk."""
