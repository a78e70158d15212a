"""Machine code made from a cell's equations: by LLVM, for training and for completing."""
