"""Former names of a run on disk and of what finds runs, for programs that import them from here."""

from charrnn.files import write_atomically
from charrnn.training.run import Run
from charrnn.training.run_files import OWN_FILES, RESTORE, TENSOR_FILES
from charrnn.training.run_json import FORMAT
from charrnn.training.runs import find_folder, find_run, folders, runs
from charrnn.training.tensor_files import Tensors

__all__ = [
    "FORMAT",
    "OWN_FILES",
    "RESTORE",
    "TENSOR_FILES",
    "Run",
    "Tensors",
    "find_folder",
    "find_run",
    "folders",
    "runs",
    "write_atomically",
]
