"""A run's weights alone, in a folder that can be given away: it completes and scores, and cannot be resumed.

run.json, config.json, tokenizer.json and one file of weights. Nothing of the machine is in it: no path, no time, no
losses of single characters. The same weights make the same bytes.
"""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from charrnn.errors import CharRNNError, OptionError
from charrnn.training import run_json, tensor_files
from charrnn.training.config import Config
from charrnn.training.run import Run

# Endings of single files, for what a folder of weights is not.
FILE_ENDINGS = (".html", ".onnx", ".json", ".safetensors", ".pt", ".pth", ".zip", ".gz")
# What run.json of the original says that the new one does too; where it is kept, and how long it took, it does not.
KEPT = ("step", "characters", "best_val_nats", "parameters", "diverged", "made_with", "identity")
OF_THE_MACHINE = ("run", "seconds", "chars_per_s", "host")


def weights(run: Run, folder: Path, which: str = "best") -> Run:
    """Write the weights of a run alone into a new folder. Returns the run in it.

    which: 'best' or 'last'. Raises CharRNNError where the run is damaged, or the folder is taken or cannot be written.
    """
    if folder.suffix.lower() in FILE_ENDINGS:
        raise OptionError(f"{folder} ends as a file does", "give a folder, in which the files will be")
    about, config, tokenizer = run.about(), run.config(), run.tokenizer()
    tensors = run.weights(which)
    run.architecture().check(tensors)
    target = Run(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise CharRNNError(f"{folder} exists already", "choose another folder, or delete that one")
    target.create(anywhere(config), tokenizer)
    try:
        entry = tensor_files.store(folder, "best", about["step"], tensors)
        target.rewrite(_facts(about, entry))
    except OSError as error:
        target.abandon()
        problem = f"{error.filename or folder} cannot be written: {error.strerror or error}"
        raise CharRNNError(problem, "make room, or choose another folder") from error
    return target


def _facts(about: Mapping[str, Any], entry: Mapping[str, str]) -> dict[str, Any]:
    """Return what run.json of weights alone holds, from that of the run they come from."""
    kept = {name: about.get(name) for name in KEPT}
    for name, values in (("result", about["result"]), ("made_with", kept["made_with"])):
        kept[name] = values and {key: value for key, value in values.items() if key not in OF_THE_MACHINE}
    return {"format": run_json.WEIGHTS_FORMAT, **kept, "files": {"best": entry}}


def anywhere(config: Config) -> Config:
    """Return a configuration without what belongs to one machine: folders of texts, and speeds measured there."""
    names = tuple(re.split(r"[/\\]", name.rstrip("/\\"))[-1] or name for name in config.corpus)
    # Not by its own `replace`, which forgets the text's fingerprint with its names.
    return dataclasses.replace(config, corpus=names, measured_us={})
