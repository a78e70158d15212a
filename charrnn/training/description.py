"""What a notebook shows of a model: what it is, what it learned, its scores and its learning curve."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from charrnn import perplexity
from charrnn.errors import CharRNNError
from charrnn.model.architecture import Architecture
from charrnn.pages import curve, filling
from charrnn.training import learning_curve
from charrnn.training.config import Config
from charrnn.training.run import Run

Y_AXIS = "bits per character"


def shape_of(config: Config, architecture: Architecture) -> str:
    """Say which cell a model has, and how large it is."""
    inputs = "one-hot" if config.one_hot else f"embedding {config.embedding_size}"
    return f"{config.cell}, hidden {config.hidden} x {config.layers}, {inputs}: {architecture.count_in_words()}"


def of_model(run: Run | None, config: Config, architecture: Architecture) -> str:
    """Return a model as HTML. A run that was removed or damaged meanwhile is left out."""
    about, picture = dict[str, Any](), None
    if run is not None:
        try:
            about = run.about()
            curves = learning_curve.points(run.history(), "step")
        except (CharRNNError, OSError):
            curves = {}
        if sum(map(len, curves.values())) > 2:
            picture = curve.drawn(curves, float(about["step"]), "steps", Y_AXIS)
    name = "a model" if run is None else run.name
    facts = list(_facts(run, config, about))
    return str(filling.fill("model.html", name=name, shape=shape_of(config, architecture), facts=facts, curve=picture))


def of_models(models: Sequence[tuple[Run | None, Config, Architecture]]) -> str:
    """Return several models as one as HTML: what each of them is."""
    facts = [("a model" if run is None else run.name, shape_of(config, shape)) for run, config, shape in models]
    said = "their probabilities of the next character are averaged"
    return str(filling.fill("model.html", name=f"{len(models)} models as one", shape=said, facts=facts, curve=None))


def _facts(run: Run | None, config: Config, about: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what is known, each with its name."""
    yield "text", ", ".join(config.corpus)
    if about.get("step") is not None:
        characters = about.get("characters")
        read = "" if characters is None else f", {characters:,} characters"
        seconds = about.get("seconds")
        yield "trained", f"{about['step']:,} steps{read}" + ("" if seconds is None else f" in {seconds:,.0f} s")
    result = about.get("result") or {}
    for part, name in (("val", "validation"), ("test", "test")):
        if (bits := result.get(f"{part}_bits_per_char")) is not None:
            yield name, f"{bits:.4f} bits per character, perplexity {perplexity.of_bits(bits):.3f}"
    if about.get("diverged") is not None:
        yield "diverged", f"at step {about['diverged']:,}"
    elif run is not None and about and not result and not run.is_weights_alone():
        yield "state", "not complete: it can be resumed"
    if run is not None:
        yield "run", str(run.path)
