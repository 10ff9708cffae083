"""Augmentations: sample their parameters, transform boxes accordingly, and compute their pixels."""
