"""MongoDB and the blob store: connections, the database schema, blob keys, and durable files."""
