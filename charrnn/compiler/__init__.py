"""Machine code made from a cell's equations: for decoding through Numba, for training through LLVM."""
