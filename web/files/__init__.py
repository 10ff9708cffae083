"""Files of images: originals, renditions, thumbnails and augmentations."""
