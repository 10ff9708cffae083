"""Image processing: decode, measure, read barcodes, detect, augment.

A library without I/O that knows nothing of batches or claims, and the only package of the service that imports torch or
OpenCV.
"""
