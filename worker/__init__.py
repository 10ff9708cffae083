"""The workers: the way of one claim, the sweep, and vision."""
