"""Inspections: one image by URL or from the request body."""
