"""Training in machine code: the equations differentiated, cut into stages, made into one call for a whole layer."""
