"""The door: `python cli.py ...` is `python -m charrnn ...` is `charrnn ...`."""

from charrnn.__main__ import main

if __name__ == "__main__":  # the processes of `compare --jobs` import this file too
    main()
