"""What resuming needs besides the weights, as named tensors: moments, carried state, running sums."""

from collections.abc import Sequence

import torch

from charrnn.errors import CharRNNError
from charrnn.model.architecture import Architecture
from charrnn.model.rnn import State
from charrnn.training.config import Config
from charrnn.training.optimizers import moment_shapes
from charrnn.training.run import Restored
from charrnn.training.tensor_files import Tensors
from charrnn.training.trainer import Trainer

ONE = (1,)  # a single number is stored as a row of one
REMEMBERED = "state/ids"  # the last ids of each row, which direct connections look at
LISTED = 8  # so many differences are named


def tensors_of(trainer: Trainer) -> Tensors:
    """Copy the training state to the CPU, by name; with other ranks, the carried state of all rows."""
    tensors = {f"moments/{name}": value for name, value in trainer.optimizer.moments.items()}
    names = trainer.architecture.definition.state
    whole = trainer.whole_state()
    for i in range(trainer.architecture.layers):
        for name, value in zip(names, whole[i], strict=True):
            tensors[f"state/{i}/{name}"] = value
    if trainer.architecture.remembered:
        tensors[REMEMBERED] = whole[-1][0]
    tensors |= {"sums/nats": trainer.sum_nats, "sums/characters": torch.tensor(trainer.sum_characters)}
    return {name: tensor.detach().cpu().numpy() for name, tensor in tensors.items()}


def restore(trainer: Trainer, saved: Restored, run: str) -> None:
    """Let a trainer become what was saved, and other ranks with it. It takes over the tensors, and steps change them.

    run: its name, for errors. Raises CharRNNError where the tensors are not of the trainer's configuration.
    """
    refuse(differences(trainer.config, trainer.architecture, trainer.streams.batch, saved), run)
    weights, training = saved.weights, saved.training
    tensors = {name: torch.from_numpy(value) for name, value in training.items()}
    trainer.take(weights)
    trainer.optimizer.restore(
        {name.removeprefix("moments/"): t for name, t in tensors.items() if name.startswith("moments/")}
    )
    state: State = tuple(
        tuple(tensors[f"state/{i}/{name}"].to(trainer.device) for name in trainer.architecture.definition.state)
        for i in range(trainer.architecture.layers)
    )
    if trainer.architecture.remembered:
        state = (*state, (tensors[REMEMBERED].to(trainer.device),))
    trainer.sum_nats = tensors["sums/nats"].to(trainer.sum_nats.device)
    trainer.sum_characters = int(tensors["sums/characters"])
    trainer.step, trainer.characters = saved.checkpoint.step, saved.checkpoint.characters
    trainer.hand_out(state)


def refuse(found: Sequence[str], run: str) -> None:
    """Raise CharRNNError where a run, by name, was trained with something else. found: the differences."""
    if found:
        more = f"; and {len(found) - LISTED} more" if len(found) > LISTED else ""
        raise CharRNNError(
            f"{run} was trained with something else than its folder says: {'; '.join(found[:LISTED])}{more}",
            "its files are of different runs, or one was changed: restore them from a copy, or train a new run",
        )


def differences(config: Config, architecture: Architecture, batch: int, saved: Restored) -> list[str]:
    """List how weights and a training state differ from the names, shapes and dtypes that they must have.

    batch: the rows that the streams of the training part have.
    """
    found = architecture.differences({name: tuple(value.shape) for name, value in saved.weights.items()})
    expected = _expected(config, architecture, batch)
    given = {name: (tuple(value.shape), str(value.dtype)) for name, value in saved.training.items()}
    for name in dict.fromkeys([*expected, *given]):
        if expected.get(name) != given.get(name):
            shown = [" ".join(map(str, side[name])) if name in side else "none" for side in (given, expected)]
            found.append(f"the training state has {name}: {shown[0]}, the configuration asks for {shown[1]}")
    return found


def _expected(config: Config, architecture: Architecture, batch: int) -> dict[str, tuple[tuple[int, ...], str]]:
    """Give the shape and dtype of every tensor of a training state, by name."""
    expected: dict[str, tuple[tuple[int, ...], str]] = {
        "sums/nats": (ONE, "float64"),
        "sums/characters": (ONE, "int64"),
    }
    for i in range(architecture.layers):
        for name, shape in architecture.states.items():
            expected[f"state/{i}/{name}"] = ((batch, *shape), "float32")
    if architecture.remembered:
        expected[REMEMBERED] = ((batch, architecture.remembered), "int64")
    shapes = {name: shape for name, (shape, _) in architecture.shapes().items()}
    for name, shape in moment_shapes(config, shapes).items():
        expected[f"moments/{name}"] = (shape or ONE, "float32")
    return expected
