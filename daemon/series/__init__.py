"""From single frames to focal series, and the drift between their frames."""
