"""The local page: its files, its routes, what they compute, and the training that it begins."""
