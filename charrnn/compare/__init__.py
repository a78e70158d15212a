"""Cells against each other, with numbers one can defend; and why they differ."""
