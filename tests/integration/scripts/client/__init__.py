"""Tests of ``scripts/upload`` with a real web front and a real database."""
