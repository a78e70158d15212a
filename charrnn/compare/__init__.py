"""Cells against each other, with numbers that can be defended; and the reasons why they differ."""
