"""Tests of the rules of tags."""
