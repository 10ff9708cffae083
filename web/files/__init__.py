"""The files of the images in a batch: originals, renditions, thumbnails, boxes and augmentations."""
