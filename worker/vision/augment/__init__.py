"""Augmentations: their parameters, the boxes that move with them, and their pixels."""
