"""The processing of inspections."""
