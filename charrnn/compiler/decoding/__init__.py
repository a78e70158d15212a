"""The equations as loops that Numba compiles, kept on disk: what completing text runs."""
