"""What a text costs a model: by compiled code or by torch, whichever reads it in less time here."""

from collections.abc import Callable
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from charrnn.generate import fastest
from charrnn.generate.decoders import Decoders
from charrnn.progress import Progress, silent
from charrnn.text import documents
from charrnn.text.documents import Starts

if TYPE_CHECKING:  # compiled code scores, and what is here is imported, without torch
    from charrnn.model.adaptation import Adapting
    from charrnn.model.evaluation import Mode
    from charrnn.model.rnn import CharRNN

COMPILE_IDS = 4096  # a shorter text is scored by torch in less time than compiling may take
PIECE_IDS = 512  # by which a CPU and a GPU are compared


@runtime_checkable
class StreamScoring(Protocol):
    """A decoder that scores texts by itself."""

    def stream_costs(self, ids: NDArray[Any], starts: Starts, progress: Progress = silent) -> NDArray[np.float64]:
        """As `charrnn.model.evaluation.stream_costs`."""


def costs(
    decoders: Decoders,
    engine: str,
    window: int,
    ids: NDArray[Any],
    mode: "Mode",
    starts: Starts,
    progress: Progress = silent,
) -> NDArray[np.float64]:
    """Return the nats of every id of a text (N,).

    decoders: of the model. engine: of its training, which torch uses where it can. window: of its training too, in ids;
    mode 'cold' starts each of so many from nothing, 'stream' carries the state over the text, and so does 'adapt',
    where a copy learns on. starts: the positions at which documents begin, each of which is read from nothing.
    """
    from charrnn.model import evaluation

    if mode == "adapt":
        return adapting(decoders, engine).costs(ids, starts, progress)
    if mode == "stream" and len(ids) >= COMPILE_IDS and decoders.device not in ("cuda", "mps"):
        decoder = decoders.on_cpu()
        if isinstance(decoder, StreamScoring) and _is_faster(decoder, decoders, engine, ids):
            return decoder.stream_costs(ids, starts, progress)
    model = _network(decoders, engine)
    if mode == "stream":
        return evaluation.stream_costs(model, ids, starts=starts, progress=progress)
    return evaluation.cold_costs(model, ids, window, starts, progress)


def adapting(decoders: Decoders, engine: str) -> "Adapting":
    """Return a copy of the model that learns from what it reads; arguments as of `costs`."""
    from charrnn.model.adaptation import Adapting

    return Adapting(_network(decoders, engine))


def _network(decoders: Decoders, engine: str) -> "CharRNN":
    """Return the model under torch, on the GPU where that may be used."""
    from charrnn.engines import choose, names_for
    from charrnn.model.rnn import CharRNN

    device = decoders.device if decoders.device in ("cpu", "mps") else "cuda"
    if engine not in names_for(decoders.architecture.definition, device):
        engine = "auto"  # trained elsewhere, perhaps
    chosen = choose(decoders.architecture.definition, engine, device)
    return CharRNN(decoders.architecture, decoders.weights, chosen).to(device)


def _is_faster(decoder: StreamScoring, decoders: Decoders, engine: str, ids: NDArray[Any]) -> bool:
    """Tell whether a decoder reads a text in less time than torch: measured where that has a GPU."""
    from charrnn.model import evaluation

    if decoders.device != "auto" or decoders.kept != "float32":
        return True
    some = ids[:PIECE_IDS]
    network = cache(partial(_network, decoders, engine))  # made once, and only where it is measured
    works: dict[str, Callable[[], object]] = {
        "CPU": partial(decoder.stream_costs, some, documents.NONE),
        "GPU": lambda: evaluation.stream_costs(network(), some),
    }
    seconds = fastest.seconds(f"score {decoders.architecture}", works)
    return seconds["CPU"] <= seconds["GPU"]
