"""The equations as loops that Numba compiles and a cache keeps: the compiled decoder, which completes text."""
