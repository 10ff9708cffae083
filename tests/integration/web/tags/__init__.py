"""Tests of tags through the API."""
