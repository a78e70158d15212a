"""What may be set about a model: its cell, its sizes, how it starts."""

from collections.abc import Mapping
from dataclasses import dataclass

from charrnn.errors import OptionError
from charrnn.knobs import Knobs, knob

MOST_ROWS = 1 << 24  # of a table of direct connections
MOST_LAYERS = 1000  # far more than anybody trained: a file may ask for so many that counting them takes for ever


@dataclass(frozen=True, eq=False, repr=False)  # Settings has both
class ModelSettings(Knobs):
    """The settings of a model. Raises CharRNNError for a value that is out of range or contradicts another."""

    cell: str = knob("nn.GRU", "the recurrent cell; `cells` lists them")
    cell_options: Mapping[str, int] = knob({}, "options of the cell, name=value; `cells NAME` lists them")
    hidden: int | None = knob(None, "H, features of the hidden state in each layer; by rule", low=1)
    layers: int | None = knob(None, "L, recurrent layers on top of each other; by rule", low=1, high=MOST_LAYERS)
    embedding: int | None = knob(None, "E, features of a character; chosen as min(H, 128), or H when tied", low=1)
    one_hot: bool = knob(False, "feed characters as one-hot vectors instead of an embedding")
    dropout: float | None = knob(
        None, "share of each layer's outputs dropped while training; by rule", low=0, high=0.95
    )
    dropout_per: str = knob(
        "window",
        "what a mask of dropout is drawn for: a window, in all of which a feature is missing then (variational "
        "dropout), or each character",
        choices=("window", "character"),
    )
    weight_dropout: float | None = knob(
        None,
        "share of the weights between states dropped in each window while training (DropConnect); by rule",
        low=0,
        high=0.95,
    )
    direct: int | None = knob(
        None,
        "N, direct connections: what the last 1..N characters by themselves say of the next one, in tables beside the "
        "network; 0 is none; by rule",
        low=0,
        high=32,
    )
    direct_rows: int | None = knob(None, "R, rows of each table of direct connections; by rule", low=0, high=MOST_ROWS)
    direct_dropout: float | None = knob(
        None, "share of these tables left out in each row and window while training; by rule", low=0, high=0.95
    )
    tie: bool = knob(False, "use the embedding as the head's matrix too")
    residual: bool = knob(False, "add a layer's input to its output, from the second layer up")
    uniform: float | None = knob(None, "start every weight uniformly within +-this instead of by its own rule", low=0)

    bias_smoothing: float | None = knob(
        None,
        "a, where the head's bias starts at log((count + a) / (N + a V)) of each character's count in the training "
        "part; 0 starts it at zero; by rule",
        low=0,
    )
    unseen: str | None = knob(
        None,
        "what the head says of ids that the training part does not have: fixed as it starts, which trains faster, or "
        "learned; fixed, unless tied or the bias starts at zero",
        choices=("fixed", "learned"),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.one_hot and (self.embedding is not None or self.tie):
            raise OptionError("one-hot input has no embedding to size or to tie", "leave out embedding and tie")
        if self.tie and None not in (self.embedding, self.hidden) and self.embedding != self.hidden:
            raise OptionError(
                f"tied weights need an embedding of the hidden size {self.hidden}, not {self.embedding}",
                "leave the embedding out",
            )

        if self.direct == 0 and self.direct_rows:
            raise OptionError(f"no direct connections, and {self.direct_rows} rows of them", "leave out direct-rows")
        if self.tie and self.unseen == "fixed":
            raise OptionError("tied weights learn what they say of every id", "let unseen be learned, or leave out tie")

    @property
    def drops(self) -> bool:
        """Tell whether anything is dropped while training."""
        return bool(self.dropout or self.weight_dropout or (self.direct and self.direct_dropout))

    @property
    def embedding_size(self) -> int | None:
        """Give E after the rule: None with one-hot input, H when tied, else min(H, 128) unless given."""
        if self.one_hot:
            return None
        assert self.hidden is not None
        return self.embedding or (self.hidden if self.tie else min(self.hidden, 128))
