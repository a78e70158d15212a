"""The folder of everything that outlives a command."""

import os
from pathlib import Path


def home() -> Path:
    """Return the folder that holds runs, private copies of corpora and fetched ones: CHARRNN_HOME, or ./checkpoints."""
    return Path(os.environ.get("CHARRNN_HOME") or "checkpoints")
