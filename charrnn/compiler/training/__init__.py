"""The equations and their derivative as LLVM: what the compiled engine trains with."""
