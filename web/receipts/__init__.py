"""Return the receipt of a batch, and verify receipts."""
