"""MongoDB and the blob store: connections, schema, keys and durable files."""
