"""Augmentations: parameters, boxes and pixels."""
