"""Text: its sources, its cleaning, its split, its ids and the streams that training reads."""
