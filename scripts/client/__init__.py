"""The bulk client: what people would otherwise write themselves."""
