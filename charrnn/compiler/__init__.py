"""From a cell's equations to machine code: for decoding through Numba, for training through LLVM."""
