"""How fast it is here, against what a careful torch user would write and against the limits."""
