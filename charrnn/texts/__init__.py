"""Where text comes from, what it is like, and the private copies that runs are trained on."""
