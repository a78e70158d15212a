"""Other programs' forms of a model: one step with explicit state, from the same graph as the machine code."""
