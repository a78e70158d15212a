"""What resuming needs besides the weights, as named tensors: moments, carried state, running sums."""

from typing import Any

import torch

from charrnn.errors import CharRNNError
from charrnn.training.tensor_files import Tensors
from charrnn.training.trainer import Trainer

ONE = (1,)  # a single number is stored as a row of one


def tensors_of(trainer: Trainer) -> Tensors:
    """Copy the training state to the CPU, by name."""
    tensors = {f"moments/{name}": value for name, value in trainer.optimizer.moments.items()}
    for i, layer in enumerate(trainer.state):
        for name, value in zip(trainer.architecture.definition.state, layer, strict=True):
            tensors[f"state/{i}/{name}"] = value
    tensors |= {"sums/nats": trainer.sum_nats, "sums/characters": torch.tensor(trainer.sum_characters)}
    return {name: tensor.detach().cpu().numpy() for name, tensor in tensors.items()}


def restore(trainer: Trainer, about: dict[str, Any], weights: Tensors, training: Tensors, run: str) -> None:
    """Let a trainer become what was saved.

    about: step and characters, as in run.json. training: as from `tensors_of`. run: its name, for errors.
    Raises CharRNNError where the tensors are not of the trainer's configuration.
    """
    trainer.architecture.check(weights)
    _check(trainer, training, run)
    tensors = {name: torch.from_numpy(value) for name, value in training.items()}
    trainer.take(weights)
    trainer.optimizer.restore(
        {name.removeprefix("moments/"): t for name, t in tensors.items() if name.startswith("moments/")}
    )
    trainer.state = tuple(
        tuple(tensors[f"state/{i}/{name}"].to(trainer.device) for name in trainer.architecture.definition.state)
        for i in range(trainer.architecture.layers)
    )
    trainer.sum_nats = tensors["sums/nats"].to(trainer.device)
    trainer.sum_characters = int(tensors["sums/characters"])
    trainer.step, trainer.characters = about["step"], about["characters"]


def _check(trainer: Trainer, training: Tensors, run: str) -> None:
    """Raise CharRNNError unless a training state has exactly the names, shapes and dtypes it must have."""
    expected = _expected(trainer)
    given = {name: (tuple(value.shape), str(value.dtype)) for name, value in training.items()}
    for name in [*expected, *given]:
        if expected.get(name) != given.get(name):
            shown = [" ".join(map(str, side[name])) if name in side else "none" for side in (given, expected)]
            raise CharRNNError(
                f"the training state of {run} has {name}: {shown[0]}; its config.json wants {shown[1]}",
                "they are of different runs, or one was changed: restore both from a copy, or train a new run",
            )


def _expected(trainer: Trainer) -> dict[str, tuple[tuple[int, ...], str]]:
    """Give the shape and dtype of every tensor of a training state, by name."""
    expected: dict[str, tuple[tuple[int, ...], str]] = {
        "sums/nats": (ONE, "float64"),
        "sums/characters": (ONE, "int64"),
    }
    for i in range(trainer.architecture.layers):
        for name in trainer.architecture.definition.state:
            expected[f"state/{i}/{name}"] = ((trainer.streams.batch, trainer.architecture.hidden), "float32")
    for name, shape in trainer.optimizer.shapes().items():
        expected[f"moments/{name}"] = (shape or ONE, "float32")
    return expected
