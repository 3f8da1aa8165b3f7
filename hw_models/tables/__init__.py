"""Tables of measured latencies: one schema, importers, a registry."""
