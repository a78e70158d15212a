"""What was decided about a run: every setting with its value, nothing left open. config.json holds it whole.

With the corpus it names, it determines every weight of the run, on one processor and version.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self, TypeVar

from charrnn import engines, strict_json
from charrnn.errors import CharRNNError
from charrnn.knobs import narrowed, refuse_unknown
from charrnn.training.settings import Plan, Settings

FORMAT = 7  # of config.json
# What the settings of direct connections are where there are none.
NO_DIRECT: dict[str, Any] = {"direct": 0, "direct_rows": 0, "direct_rate": 0.0, "direct_dropout": 0.0}
S = TypeVar("S", bound=Settings)


@dataclass(frozen=True)
class Config(Settings):
    """A run's settings after everything was decided. Raises CharRNNError where something is still open.

    plan: empty while a budget of time is not yet a number of steps.
    """

    fingerprint: str = narrowed(Settings, "fingerprint")
    hidden: int = narrowed(Settings, "hidden")
    layers: int = narrowed(Settings, "layers")
    dropout: float = narrowed(Settings, "dropout")
    weight_dropout: float = narrowed(Settings, "weight_dropout")
    direct: int = narrowed(Settings, "direct")
    direct_rows: int = narrowed(Settings, "direct_rows")
    direct_rate: float = narrowed(Settings, "direct_rate")
    direct_dropout: float = narrowed(Settings, "direct_dropout")
    bias_smoothing: float = narrowed(Settings, "bias_smoothing")
    unseen: str = narrowed(Settings, "unseen")
    batch: int = narrowed(Settings, "batch")
    window: int = narrowed(Settings, "window")
    lr: float = narrowed(Settings, "lr")
    warmup: int = narrowed(Settings, "warmup")
    patience: int = narrowed(Settings, "patience")
    threads: int = narrowed(Settings, "threads")
    device: str = narrowed(Settings, "device", choices=("cpu", "cuda", "mps"))
    precision: str = narrowed(Settings, "precision", choices=("float32", "tf32", "bf16"))
    engine: str = narrowed(Settings, "engine", choices=engines.NAMES)

    @classmethod
    def decided(cls, settings: Settings) -> Self:
        """Make a configuration of settings in which nothing is open."""
        return cls(**values_of(settings))

    def as_settings(self) -> Settings:
        """Give the same values as settings, in which some may be opened again."""
        return Settings(**values_of(self))

    def planned(self, plan: Plan) -> Self:
        """Copy with a length that was decided anew."""
        return dataclasses.replace(self, plan=(*self.plan, plan))

    @property
    def steps_in_all(self) -> int | None:
        """Give the length of the run as it is planned now, None before the first plan of a budget."""
        return self.plan[-1].steps if self.plan else None

    def to_json(self) -> str:
        """Write the whole configuration as JSON, one setting a line."""
        return strict_json.dumps({"format": FORMAT, **values_of(self)}, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str, source: str) -> Self:
        """Read what `to_json` wrote, of this format or an older one; `source` is named in errors."""
        return _made(cls, read(text, source), source)


def values_of(settings: Settings) -> dict[str, Any]:
    """Give every setting by name."""
    return {each.name: getattr(settings, each.name) for each in dataclasses.fields(settings)}


def settings_from_json(text: str, source: str) -> Settings:
    """Read settings from a config.json, whole or in part: to repeat a run, or some of what was asked of it."""
    return _made(Settings, read(text, source), source)


def read(text: str, source: str) -> dict[str, Any]:
    """Read the values of a config.json of any format, as this format has them. Raises CharRNNError, naming `source`."""
    try:
        values: dict[str, Any] = strict_json.loads(text, lenient=False)
    except ValueError as error:
        raise CharRNNError(f"{source} is not JSON ({error})", "give the config.json of a run") from None
    if not isinstance(values, dict):
        raise CharRNNError(f"{source} holds no settings", "give the config.json of a run")
    format_ = values.pop("format", FORMAT)
    if type(format_) is not int or not 1 <= format_ <= FORMAT:
        raise CharRNNError(
            f"{source} has format {repr(format_)[:60]}, this version reads 1 to {FORMAT}", "upgrade charrnn"
        )
    if format_ < 2:
        values = _from_format_1(values, source)
    if format_ < 3:  # the head's bias started at zero
        values = {**values, "bias_smoothing": 0.0}
    if format_ < 5:  # the head learned that ids which never came are unlikely
        values = {**values, "unseen": "learned"}
    if format_ < 6:  # dropout had a mask for each character, and weights were not dropped
        values = {**values, "dropout_per": "character", "weight_dropout": 0.0}
    if format_ < 7:
        values = {**values, **NO_DIRECT}
    return values


def _from_format_1(values: dict[str, Any], source: str) -> dict[str, Any]:
    """Give the values of format 1 as those of format 2: validations were spaced once for all plans, beside them."""
    plan = values.get("plan")
    if plan:
        try:
            values["plan"] = [(since, steps, values.get("validate_every") or steps) for since, steps in plan]
        except (TypeError, ValueError):
            raise CharRNNError(f"{source}: plan is {plan!r}", "restore the file from a copy") from None
    return values


def _made(kind: type[S], values: Mapping[str, Any], source: str) -> S:
    try:
        refuse_unknown(kind, values, source)
    except CharRNNError as error:
        hint = f"{error.hint}; or upgrade charrnn, if a newer version wrote it"
        raise CharRNNError(error.problem, hint) from None
    try:
        return kind(**values)
    except CharRNNError as error:
        raise CharRNNError(f"{source}: {error.problem}", error.hint) from None
