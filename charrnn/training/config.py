"""Every setting of a run, declared once: its default, its unit, what it accepts and what it means.

A `Config` is frozen and checked when it is made. The command line derives its options from it, and config.json in a
run holds it whole: with the corpus it names, it determines every weight of the run.
"""

import dataclasses
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from charrnn import strict_json
from charrnn.errors import CharRNNError, did_you_mean

FORMAT = 1  # of config.json and run.json
TEXT_SETTINGS = ("corpus", "newline", "errors", "normalize", "document")  # what the fingerprint depends on


def knob(
    default: Any, help: str, *, choices: tuple[str, ...] = (), low: float | None = None, high: float | None = None
) -> Any:
    """Declare a field of `Config`: a default of None is off or decided later (see `help`); bounds are inclusive."""
    metadata = {"help": help, "choices": choices, "low": low, "high": high}
    if isinstance(default, dict):
        return field(default_factory=lambda: dict(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def resolved(default: Any, help: str, *, low: float | None = None) -> Any:
    """Declare a field that no user sets: decided while running, and stored so that it is never decided again."""
    metadata = {"help": help, "resolved": True, "low": low}
    if isinstance(default, dict):
        return field(default_factory=lambda: dict(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Config:
    """The settings of a run. Raises CharRNNError for a value that is out of range or contradicts another."""

    corpus: tuple[str, ...] = knob(
        ("rekurentne",), "what to learn: files, folders, patterns, - for standard input, or a named corpus"
    )
    split: tuple[float, ...] = knob((0.8, 0.1, 0.1), "shares of the text for training, validation and test, in order")
    tokenizer: str = knob("char", "characters as they come, or the bytes of UTF-8", choices=("char", "byte"))
    newline: str = knob("keep", "line ends: as they are, or CR LF and CR turned into LF", choices=("keep", "lf"))
    errors: str = knob(
        "strict", "bytes that are not UTF-8: refuse the text, or put U+FFFD instead", choices=("strict", "replace")
    )
    normalize: str = knob("none", "Unicode normal form of the text, and of primes", choices=("none", "nfc"))
    document: str = knob(
        "none",
        "what stands alone: the model forgets before each line, each paragraph after blank lines, or each file",
        choices=("none", "line", "blank", "file"),
    )

    cell: str = knob("nn.GRU", "the recurrent cell; `cells` lists them")
    cell_options: Mapping[str, int] = knob({}, "options of the cell, name=value; `cells NAME` lists them")
    hidden: int = knob(None, "H, features of the hidden state in each layer; by rule", low=1)
    layers: int = knob(None, "L, recurrent layers on top of each other; by rule", low=1)
    embedding: int | None = knob(None, "E, features of a character; chosen as min(H, 128), or H when tied", low=1)
    one_hot: bool = knob(False, "feed characters as one-hot vectors instead of an embedding")
    dropout: float = knob(None, "share of each layer's outputs dropped while training; by rule", low=0, high=0.95)
    tie: bool = knob(False, "use the embedding as the head's matrix too")
    residual: bool = knob(False, "add a layer's input to its output, from the second layer up")
    uniform: float | None = knob(None, "start every weight uniformly within +-this instead of by its own rule", low=0)

    batch: int = knob(None, "B, streams trained side by side; by rule", low=1)
    window: int = knob(None, "T, characters between two steps: gradients stop there, the state goes on; by rule", low=1)
    lr: float = knob(None, "peak learning rate; by rule", low=0)
    optimizer: str = knob("adamw", "how gradients change the weights", choices=("adamw", "rmsprop"))
    beta1: float = knob(0.9, "AdamW's smoothing of the gradient", low=0, high=0.9999)
    beta2: float = knob(0.99, "smoothing of the squared gradient, AdamW's and RMSProp's", low=0, high=0.9999)
    # No less: a little regularisation helps every cell. No more: three times as much costs. docs/results/rule.md
    weight_decay: float = knob(0.1, "AdamW's weight decay, of matrices alone", low=0)
    schedule: str = knob(
        "cosine",
        "how the rate falls: to zero, by `decay` every epoch, or not at all",
        choices=("cosine", "step", "constant"),
    )
    warmup: int = knob(None, "steps over which the rate rises to its peak; by rule", low=0)
    decay: float = knob(0.97, "with --schedule step: the factor applied once an epoch", low=0, high=1)
    decay_after: int = knob(10, "with --schedule step: epochs before the first decay", low=0)
    clip: float | None = knob(1.0, "bound on the gradient's norm or values; 0 is off", low=0)
    clip_by: str = knob("norm", "clip the norm of the whole gradient, or each value", choices=("norm", "value"))
    steps: int | None = knob(None, "train for this many steps", low=1)
    epochs: float | None = knob(None, "train for this many passes over the training part", low=0)
    budget: float | None = knob(
        None, "train for about this long, all included: 90, 90s, 3m, 1h30m; the default is 3m", low=1
    )
    validate_every: int | None = knob(None, "steps between validations; chosen for about 20 in a run", low=1)
    patience: int = knob(
        None,
        "early stopping: end a run whose best validation is so many ago; 0 is off; by rule 5 with a budget, else off",
        low=0,
    )

    seed: int = knob(7, "everything random follows from it", low=0, high=2**63 - 1)
    device: str = knob("auto", "where to compute: CUDA when there is one", choices=("auto", "cpu", "cuda"))
    precision: str = knob("auto", "precision of matrix products", choices=("auto", "float32", "bf16"))
    engine: str = knob("auto", "how a cell is run along time", choices=("auto", "loop", "fused", "scan", "native"))

    fingerprint: str | None = resolved(None, "SHA-256 of the corpus's text, as UTF-8")
    measured_us: Mapping[str, int] = resolved({}, "microseconds of a step by 'engine precision', where compared")
    threads: int | None = resolved(None, "threads torch computed with: sums depend on it in the last bit", low=1)
    plan: tuple[tuple[int, int], ...] = resolved(
        (), "(from step, steps in all): the length of the run, as it was decided"
    )

    def __post_init__(self) -> None:
        for knob_field in dataclasses.fields(self):
            object.__setattr__(self, knob_field.name, _checked(knob_field, getattr(self, knob_field.name)))
        if not self.corpus:
            raise CharRNNError("no corpus was named", "give a file, or leave it out for the embedded one")
        if len(self.split) != 3 or min(self.split) < 0 or self.split[0] <= 0 or not math.isclose(sum(self.split), 1):
            raise CharRNNError(
                f"split {','.join(map(str, self.split))} is not three shares that sum to 1",
                "give training,validation,test, for instance 0.8,0.1,0.1 or 0.9,0.1,0",
            )
        if self.one_hot and (self.embedding is not None or self.tie):
            raise CharRNNError("one-hot input has no embedding to size or to tie", "leave out embedding and tie")
        if self.tie and None not in (self.embedding, self.hidden) and self.embedding != self.hidden:
            raise CharRNNError(
                f"tied weights need an embedding of the hidden size {self.hidden}, not {self.embedding}",
                "leave the embedding out",
            )
        lengths = [name for name in ("steps", "epochs", "budget") if getattr(self, name) is not None]
        if len(lengths) > 1:
            raise CharRNNError(f"{' and '.join(lengths)} both set the length of the run", "give one of them")

    @property
    def embedding_size(self) -> int | None:
        """E after the rule: None with one-hot input, H when tied, else min(H, 128) unless given."""
        if self.one_hot:
            return None
        return self.embedding or (self.hidden if self.tie else min(self.hidden, 128))

    def replace(self, **changes: Any) -> "Config":
        """Copy it with some settings changed; a length or text given anew forgets what was decided for the old one."""
        if {"steps", "epochs", "budget"} & set(changes):
            changes = {"steps": None, "epochs": None, "budget": None, "plan": (), **changes}
        if set(TEXT_SETTINGS) & set(changes):
            changes = {"fingerprint": None, **changes}
        _refuse_unknown(changes)
        return dataclasses.replace(self, **changes)

    def with_plan(self, since: int, steps: int) -> "Config":
        """Copy it with `steps` steps in all, as decided when `since` were done."""
        return dataclasses.replace(self, plan=(*self.plan, (since, steps)))

    def to_json(self) -> str:
        """Write the whole configuration as JSON, one setting a line."""
        return strict_json.dumps({"format": FORMAT, **dataclasses.asdict(self)}, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str, source: str) -> "Config":
        """Read what `to_json` wrote, or part of it; `source` is named in errors. Unknown settings are refused."""
        try:
            values = strict_json.loads(text)
        except ValueError as error:
            raise CharRNNError(f"{source} is not JSON ({error})", "give the config.json of a run") from None
        if not isinstance(values, dict):
            raise CharRNNError(f"{source} holds no settings", "give the config.json of a run")
        if values.pop("format", FORMAT) != FORMAT:
            raise CharRNNError(f"{source} has a format this version does not know", "upgrade charrnn")
        try:
            return cls.of(values, source)
        except CharRNNError as error:
            known = error.problem.startswith(source)
            raise CharRNNError(error.problem if known else f"{source}: {error.problem}", error.hint) from None

    @classmethod
    def of(cls, values: Mapping[str, Any], source: str = "the settings") -> "Config":
        """Make a configuration from settings by name; unknown ones are refused with the nearest name as a hint."""
        _refuse_unknown(values, source)
        return cls(**values)


def _refuse_unknown(values: Mapping[str, Any], source: str = "the settings") -> None:
    known = [knob_field.name for knob_field in dataclasses.fields(Config)]
    for name in values:
        if name not in known:
            raise CharRNNError(f"{source}: there is no setting {name!r}", did_you_mean(name, known))


def parse_seconds(text: str | float) -> float:
    """Seconds from 90, '90', '90s', '3m' or '1h30m'. Raises CharRNNError for anything else."""
    if isinstance(text, int | float) and not isinstance(text, bool):
        return float(text)
    match = re.fullmatch(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s?)?", str(text).strip())
    if match is None or not any(match.groups()):
        raise CharRNNError(f"{text!r} is not a length of time", "give seconds or a unit: 90, 90s, 3m, 1h30m")
    hours, minutes, seconds = (float(group or 0) for group in match.groups())
    return 3600 * hours + 60 * minutes + seconds


def _checked(knob_field: "dataclasses.Field[Any]", value: Any) -> Any:
    """Return the value as its declared type, or raise CharRNNError: what was given, what is expected."""
    name, kind, data = knob_field.name, str(knob_field.type), knob_field.metadata
    if value is None and (knob_field.default is None or "None" in kind):
        return None
    if name == "clip" and value == 0:
        return None
    try:
        if name == "budget":
            value = parse_seconds(value)
        value = _converted(kind, value)
    except (TypeError, ValueError, OverflowError):
        raise CharRNNError(f"{name} is {value!r}", f"expected {_described(kind, data)}") from None
    if data.get("choices") and value not in data["choices"]:
        raise CharRNNError(f"{name} is {value!r}", did_you_mean(str(value), list(data["choices"])))
    low, high = data.get("low"), data.get("high")
    numbers = isinstance(value, int | float) and not isinstance(value, bool)
    if numbers and not ((low is None or value >= low) and (high is None or value <= high) and math.isfinite(value)):
        raise CharRNNError(f"{name} is {value}", f"expected {_described(kind, data)}")
    return value


def _converted(kind: str, value: Any) -> Any:
    kind = kind.removesuffix(" | None").replace("<class '", "").replace("'>", "")
    if kind in ("int", "float", "bool", "str"):
        if kind == "float" and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        if not isinstance(value, {"int": int, "float": float, "bool": bool, "str": str}[kind]) or (
            kind == "int" and isinstance(value, bool)
        ):
            raise TypeError
        if isinstance(value, int) and abs(value) >= 2**63:
            raise OverflowError
        if isinstance(value, str):
            value.encode("utf-8")  # half a character, or a file name that is not UTF-8, cannot be written down
        return value
    if "Mapping" in kind:
        return {str(k): _converted("int", v) for k, v in dict(value).items()}
    if "tuple[tuple" in kind:
        return tuple((_converted("int", a), _converted("int", b)) for a, b in value)
    if "tuple[float" in kind:
        return tuple(_converted("float", v) for v in value)
    return tuple(_converted("str", v) for v in ((value,) if isinstance(value, str) else value))


def _described(kind: str, data: Mapping[str, Any]) -> str:
    words = "a whole number" if "int" in kind else "a number" if "float" in kind else "true or false"
    words = "text" if "str" in kind else words
    low, high = data.get("low"), data.get("high")
    if low is not None and high is not None:
        return f"{words} from {low} to {high}"
    return f"{words} of {low} or more" if low is not None else words
