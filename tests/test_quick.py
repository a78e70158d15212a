"""Few characters of a model that was never compiled here are decoded by NumPy: nobody waits for a compiler."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from charrnn import api
from charrnn.compiler import cache
from charrnn.generate import decoders
from charrnn.training.run import Run

TrainedRun = Callable[..., Run]


@contextmanager
def nothing_compiled(folder: Path) -> Iterator[None]:
    """A machine on which nothing was compiled yet, and nothing can be."""
    with pytest.MonkeyPatch.context() as changed:
        changed.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        changed.setattr(cache, "loaded", {})
        changed.setattr(cache, "spare_folder", lambda: folder / "spare")
        changed.setattr("charrnn.compiler.objects.object_code", refuse)
        yield


def refuse(*_: object) -> None:
    raise AssertionError("it was compiled")


def test_few_characters_are_completed_without_compiling(trained: TrainedRun, tmp_path: Path) -> None:
    run = trained(steps=2)
    with nothing_compiled(tmp_path):
        model = api.load(run, device="cpu")
        text, likeliest = model.complete("Rek", 60), model.next("Rek", 3)
        assert model.decoder(100).engine == "numpy"
    compiled = api.load(run, device="cpu")
    assert compiled.decoder().is_compiled
    assert compiled.decoder(100).is_compiled  # it is there
    assert api.load(run, device="cpu").decoder(100).is_compiled  # and on disk
    assert (compiled.complete("Rek", 60), [c for c, _ in compiled.next("Rek", 3)]) == (text, [c for c, _ in likeliest])


def test_many_characters_are_worth_compiling(trained: TrainedRun, tmp_path: Path) -> None:
    run = trained(steps=2)
    with nothing_compiled(tmp_path):
        model = api.load(run, device="cpu")
        most = decoders.QUICK_PRODUCTS // model.architecture.count_network()
        assert model.decoder(most).engine == "numpy"
        for few_bits in ("bf16", "int8"):
            with pytest.raises(AssertionError, match="it was compiled"):
                api.load(run, device="cpu", kept=few_bits).decoder(1)
        with pytest.raises(AssertionError, match="it was compiled"):
            model.complete("", most + 1)
