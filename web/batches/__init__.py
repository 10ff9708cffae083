"""List, return and delete batches."""
