"""Image processing: decode images, measure their quality, read barcodes, detect objects, and make augmentations.

This library does no I/O and does not depend on batches or claims. No other package of the service imports torch or
OpenCV.
"""
