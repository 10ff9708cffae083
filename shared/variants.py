"""Names of the files that are made from an image.

URLs and blob keys contain these names. The file of an augmentation has the name of the augmentation.
"""

from typing import Final

THUMB: Final = "thumb"
BOXES: Final = "boxes"
RENDITION: Final = "rendition"
ORIGINAL: Final = "original"
"""The inspected image itself, scaled down to at most 700 pixels on its longer side. Only inspections have this file."""
DREAM: Final = "deepdream"
DREAM_LAYERS: Final = range(1, 6)
"""Layers of the neural network that DeepDream can amplify: 1 shows strokes, 5 shows parts of objects."""
