"""Choosing the characters that go on from a prime, and what is worth saying about them."""
