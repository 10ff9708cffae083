"""HTTP concerns that every resource shares: bodies, queries, problems, origins, rate limits and file responses."""
