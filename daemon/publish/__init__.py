"""What leaves the daemon: files, messages, overlays."""
