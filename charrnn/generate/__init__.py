"""Completing text: decoders, the draw, where a completion ends, and what is worth saying about it."""
