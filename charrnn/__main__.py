"""`python -m charrnn`, and the installed command `charrnn`."""

from charrnn.cli import main as main

if __name__ == "__main__":
    main()
