"""The command line: click options -> library calls -> print."""


def main() -> None:
    """Run the command line."""
