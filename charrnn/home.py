"""Where everything is kept that outlives a command."""

import os
from pathlib import Path


def home() -> Path:
    """The folder that holds runs, private copies of corpora and fetched ones: CHARRNN_HOME, or ./checkpoints."""
    return Path(os.environ.get("CHARRNN_HOME") or "checkpoints")
