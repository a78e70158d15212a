"""Completing: one piece of machine code reads, steps every layer, draws and reads what it drew."""
