"""A finished model in forms that other programs and other machines take."""
