"""Random specimens with exact labels, one module each."""
