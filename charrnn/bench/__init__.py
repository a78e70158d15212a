"""Measurements of speed here, against what a careful torch user would write and against the machine's limits."""
