"""The web front. It has one package for each resource; a route parses a request, calls ``shared``, and returns a response."""
