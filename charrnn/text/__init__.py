"""Text: where it comes from, how it is cleaned, split, encoded and served as streams."""
