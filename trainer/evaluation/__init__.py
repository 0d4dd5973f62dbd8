"""What a network is worth: scores against simulated truth, physical limits, real images, other methods."""
