"""The thin front: one module a resource; a route parses, calls and answers."""
