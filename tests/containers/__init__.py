"""Tests of the containers, run by ``scripts/test-containers`` against a deployment that it has started."""
