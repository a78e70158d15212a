"""Runs on the Hugging Face Hub: weights alone, fetched once for each revision, by address.

    hf://USER/NAME              the newest revision
    hf://USER/NAME@REVISION     a branch, a tag or a commit

Four files are fetched, and no other: run.json, config.json, tokenizer.json and the weights that run.json names. They
are kept under the commit they belong to and read as every run is: nothing in them is run, and the weights must have
the SHA-256 of run.json, which guards against damage, not against their owner.
"""

import errno
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from charrnn import files
from charrnn.errors import CharRNNError, OptionError
from charrnn.home import home
from charrnn.patterns import pattern
from charrnn.training import run_json
from charrnn.training.run import Run

SCHEME = "hf://"
FOLDER = "hub"  # in the home folder
JSON_BYTES = {run_json.NAME: 1 << 20, "config.json": 1 << 20, "tokenizer.json": 1 << 26}  # the most that each may have
DOWNLOAD = ".download"  # in the folder that is being made
OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)  # no error of a connection has these
HEADER_BYTES = 1 << 20  # of a file of weights, beyond four for each of its numbers
SHOWN_HASH = 12  # so many digits of a commit are in the name of a folder
_ADDRESS = pattern(r"hf://(?P<repo>(?:\w[\w.-]{0,95})/(?:\w[\w.-]{0,95}))(?:@(?P<revision>\w[\w./-]{0,249}))?")
_COMMIT = pattern(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Address:
    """A repository of the Hub, as USER/NAME, and a revision of it: None for the newest."""

    repo: str
    revision: str | None = None

    @classmethod
    def parse(cls, text: str) -> "Address":
        """Read hf://USER/NAME[@REVISION]. Raises OptionError for anything else."""
        found = _ADDRESS.fullmatch(text)
        if found is None or ".." in text or "--" in found["repo"] or not text.isascii():
            raise OptionError(f"{text!r} is no address of the Hub", f"give it as {SCHEME}USER/NAME or with @REVISION")
        return cls(found["repo"], found["revision"])

    def __str__(self) -> str:
        return f"{SCHEME}{self.repo}{f'@{self.revision}' if self.revision else ''}"

    def folder(self, commit: str) -> Path:
        """Return where a commit is kept."""
        user, name = self.repo.split("/")
        return home() / FOLDER / user / f"{name}@{commit[:SHOWN_HASH]}"


def is_address(text: str) -> bool:
    """Tell whether the name of a run is an address of the Hub."""
    return text.startswith(SCHEME)


def fetch(text: str) -> Run:
    """Return the run at an address; what is not here yet is downloaded.

    Raises CharRNNError where there is no such repository or revision, where it may not be read or cannot be reached,
    and where it is not the weights of a run alone.
    """
    address = Address.parse(text)
    if address.revision and _COMMIT.fullmatch(address.revision):  # it never changes, so nobody needs to be asked
        kept = Run(address.folder(address.revision))
        if kept.exists():
            return kept
    with explained(address):
        info = api().model_info(address.repo, revision=address.revision, files_metadata=True)
    commit, sizes = str(info.sha), {file.rfilename: file.size or 0 for file in info.siblings or ()}
    if not _COMMIT.fullmatch(commit):
        raise CharRNNError(f"the Hub names {commit[:60]!r} as the commit of {address}", "try again")
    run = Run(address.folder(commit))
    if not run.exists():
        _download(address, commit, sizes, run.path)
    return run


def api() -> Any:
    """Return a client of the Hub, which is where HF_ENDPOINT says, with the token that its own command line keeps."""
    from huggingface_hub import HfApi  # only who uses it pays for it

    return HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None, library_name="charrnn")


@contextmanager
def explained(address: Address) -> Iterator[None]:
    """Say in one error what the Hub, or the way to it, refuses. Meanwhile the client shows no bars of its own."""
    import huggingface_hub.errors as hub
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    shows_bars = not are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    except hub.RevisionNotFoundError as error:
        raise CharRNNError(f"{SCHEME}{address.repo} has no revision {address.revision}", "see its page") from error
    except hub.GatedRepoError as error:
        raise CharRNNError(f"{address} asks for its owner's consent", "ask for it on its page, then log in") from error
    except (hub.RepositoryNotFoundError, hub.LocalTokenNotFoundError) as error:
        log_in = "check the name; what is private needs `hf auth login`, or HF_TOKEN, of somebody who may see it"
        raise CharRNNError(f"there is no {SCHEME}{address.repo} for you on the Hub", log_in) from error
    except hub.HfHubHTTPError as error:
        raise CharRNNError(f"the Hub refuses {address}: {_first_line(error)}", "try again, or log in") from error
    except (hub.OfflineModeIsEnabled, OSError, ValueError, RuntimeError) as error:
        if isinstance(error, OSError) and error.errno in OF_THE_DISK:
            raise CharRNNError(
                f"{address} cannot be kept in {home() / FOLDER}: {error.strerror}",
                "make room there, or name another folder in CHARRNN_HOME",
            ) from error
        raise CharRNNError(f"the Hub cannot be reached for {address}: {_first_line(error)}", _kept(address)) from error
    except Exception as error:
        if not _is_of_the_network(error):
            raise
        raise CharRNNError(f"the Hub cannot be reached for {address}: {_first_line(error)}", _kept(address)) from error
    finally:
        if shows_bars:
            enable_progress_bars()


def _download(address: Address, commit: str, sizes: Mapping[str, int], folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with files.unfinished_folder(folder.parent, folder.name) as unfinished:
        for name, most in JSON_BYTES.items():
            _fetch_file(address, commit, name, most, sizes, unfinished.path)
        about = run_json.load(unfinished.path)
        if not run_json.is_weights_alone(about):
            raise CharRNNError(
                f"{address} is not the weights of a run alone, which `push` uploads", "ask its owner for those"
            )
        most = 4 * about["parameters"] + HEADER_BYTES
        _fetch_file(address, commit, about["files"]["best"]["name"], most, sizes, unfinished.path)
        files.remove_folder(unfinished.path / DOWNLOAD)
        read = Run(unfinished.path)
        read.whole_weights(read.architecture())  # what is damaged is not kept
        unfinished.finish(folder)


def _fetch_file(address: Address, commit: str, name: str, most: int, sizes: Mapping[str, int], folder: Path) -> None:
    """Download one file of a commit into a folder, where the Hub has it and it is no larger than it may be."""
    if name not in sizes:
        raise CharRNNError(f"{address} holds no run: it has no {name}", "give the address of one that `push` uploaded")
    if sizes[name] > most:
        raise CharRNNError(
            f"{name} of {address} has {sizes[name]:,} bytes, where {most:,} at the most are expected", "use another"
        )
    with explained(address):
        # As a plain file: the client's own cache is made of links.
        path = Path(api().hf_hub_download(address.repo, name, revision=commit, local_dir=folder / DOWNLOAD))
    if path.is_symlink() or path.stat().st_size > most:
        raise CharRNNError(f"{name} of {address} is larger than the Hub said", "use another")
    files.disk.rename(path, folder / name)


def _kept(address: Address) -> str:
    """Advise what is here already, of a repository that cannot be reached."""
    user, name = address.repo.split("/")
    try:
        kept = sorted((home() / FOLDER / user).glob(f"{name}@*"), key=lambda path: -path.stat().st_mtime)
    except OSError:
        kept = []
    return f"check the connection; kept here, fetched last: --run {kept[0]}" if kept else "check the connection"


def _first_line(error: BaseException) -> str:
    """Return what an error says first, or what caused it."""
    lines = [line for line in str(error.__cause__ or error).splitlines() if line.strip()]
    return re.sub(r"\s+", " ", lines[0])[:200] if lines else type(error).__name__


def _is_of_the_network(error: BaseException) -> bool:
    """Tell whether an error is of the client's HTTP library, which is another one in other versions."""
    return any(kind.__module__.partition(".")[0] in ("httpx", "httpx2", "requests") for kind in type(error).__mro__)
