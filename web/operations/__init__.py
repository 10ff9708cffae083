"""Limits, health, readiness and metrics."""
