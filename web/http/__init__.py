"""HTTP functions that all resources share: bodies, queries, error responses, origins, rate limits and file responses."""
