"""Rebuilds hrtemd's networks from abTEM simulation."""
