"""Tests of what people do with images, with a real database."""
