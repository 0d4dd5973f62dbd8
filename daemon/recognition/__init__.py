"""Frame in, atoms out: the same code for the daemon and for training."""
