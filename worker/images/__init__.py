"""The processing of claimed images."""
