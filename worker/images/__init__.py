"""Processing of claimed images."""
