"""Seeing: decode, measure, read barcodes, detect, augment. Usable without the service; the only place that knows pixels."""
