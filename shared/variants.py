"""Names of the files made from an image. They are part of URLs and of blob keys; augmentations add their own names."""

from typing import Final

THUMB: Final = "thumb"
BOXES: Final = "boxes"
RENDITION: Final = "rendition"
ORIGINAL: Final = "original"
"""Of an inspection: the image itself, at most 700 pixels on its longer side."""
DREAM: Final = "deepdream"
DREAM_LAYERS: Final = range(1, 6)
"""Network layers that DeepDream can amplify: 1 shows strokes, 5 shows parts of objects."""
