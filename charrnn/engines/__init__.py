"""Run a cell along time: four engines, the same numbers."""
