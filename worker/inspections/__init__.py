"""Processing of inspections."""
