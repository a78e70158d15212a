"""Completing text in machine code: the equations written down as loops, compiled by Numba, kept on disk."""
