"""Tests of the receipts of batches."""
