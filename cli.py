"""The door: `python cli.py ...` is `python -m charrnn ...` is `charrnn ...`."""

from charrnn.__main__ import main

main()
