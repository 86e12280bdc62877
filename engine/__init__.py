"""The scoring engine: from the bytes of a Kafka record to the bytes of its result. DESIGN.md has the map."""
