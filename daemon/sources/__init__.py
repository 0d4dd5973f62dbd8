"""One module per way in, each with its simulator."""
