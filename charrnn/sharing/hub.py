"""Giving the weights of a run to the Hugging Face Hub, with a page that says what they are.

What `charrnn.training.export` writes is uploaded, and a model card: no path of this machine, no loss of a single
character, no training state. The repository is private unless somebody asks for a public one.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path

from charrnn import files
from charrnn.errors import CharRNNError, OptionError
from charrnn.sharing import card
from charrnn.training import export
from charrnn.training.hub import SCHEME, Address, api, explained
from charrnn.training.run import Run


@dataclass(frozen=True)
class Pushed:
    """What was uploaded. address: with the commit, for `--run`. url: of its page."""

    address: str
    url: str
    is_private: bool


def push(run: Run, repo: str, *, public: bool = False) -> Pushed:
    """Upload the weights of a run to a repository of the Hub, which is made if need be.

    repo: USER/NAME. public: whether everybody may have it. The token is the one that `hf auth login` keeps, or
    HF_TOKEN; HF_ENDPOINT names another Hub.
    Raises CharRNNError where the run is damaged, where the repository is public and that was not asked for, where it
    may not be written, and where the Hub cannot be reached.
    """
    address = Address.parse(f"{SCHEME}{repo.removeprefix(SCHEME)}")
    if address.revision is not None:
        raise OptionError(f"{repo!r} names a revision, and a new one is made", f"give {address.repo}")
    with tempfile.TemporaryDirectory(prefix="charrnn-") as folder:
        weights = export.weights(run, Path(folder) / "weights")
        files.write(weights.path / "README.md", card.of(run, address.repo))
        with explained(address):
            client = api()
            client.create_repo(address.repo, private=not public, exist_ok=True)
            is_private = bool(client.model_info(address.repo).private)
        if not is_private and not public:
            raise CharRNNError(
                f"{address.repo} is public on the Hub, and nothing was uploaded",
                "pass --public if everybody may have it, or choose another name",
            )
        step = weights.about()["step"]
        with explained(address):
            done = client.upload_folder(
                repo_id=address.repo, folder_path=weights.path, commit_message=f"{run.name}, step {step:,}"
            )
    return Pushed(f"{SCHEME}{address.repo}@{done.oid}", f"{client.endpoint}/{address.repo}", is_private)
