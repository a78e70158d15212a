"""Weights to and from torch's own recurrent layers, for the cells that are their twins: without loss, both ways."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from charrnn.cells.cell import Cell
from charrnn.errors import CharRNNError

NAMES = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")  # as torch has them, with _l0, _l1 ... for the layer


def to_torch(cell: Cell, layers: Sequence[Mapping[str, Tensor]], batch_first: bool = False) -> torch.nn.RNNBase:
    """Make the torch module that computes the same as a stack of the cell with these parameters, which it copies.

    layers: the parameters of each layer by name, bottom first. batch_first: as torch's own option.
    Raises CharRNNError for a cell without a torch twin.
    """
    if cell.twin is None:
        raise CharRNNError(f"cell {cell.name!r} has no torch layer of the same equations", "run its equations")
    stack = [cell.twin.to_torch(cell.pack(params)) for params in layers]
    I, H = stack[0][0].shape[1], stack[0][1].shape[1]
    module: torch.nn.RNNBase = getattr(torch.nn, cell.twin.layer)(I, H, len(stack), batch_first=batch_first)
    module.to(stack[0][0].dtype)
    with torch.no_grad():
        for i, weights in enumerate(stack):
            for name, value in zip(NAMES, weights, strict=True):
                getattr(module, f"{name}_l{i}").copy_(value)
    return module


def from_torch(cell: Cell, module: torch.nn.RNNBase) -> list[dict[str, Tensor]]:
    """Copy the cell's parameters from each layer of its torch twin, bottom first.

    Raises CharRNNError where the module can hold what the cell cannot, or is of another kind.
    """
    twin = cell.twin
    if twin is None or twin.from_torch is None or type(module).__name__ != twin.layer:
        raise CharRNNError(
            f"cell {cell.name!r} cannot take the weights of a {type(module).__name__}", "use its nn. twin"
        )
    if module.bidirectional or module.proj_size or not module.bias:
        raise CharRNNError(
            "the torch module reads both ways, projects its state or has no biases",
            "give one that runs forward, with biases and without proj_size",
        )
    stack = []
    for i in range(module.num_layers):
        weights = (getattr(module, f"{name}_l{i}").detach().clone() for name in NAMES)
        values = twin.from_torch(*weights)
        stack.append({name: value.contiguous() for name, value in zip(cell.parameter_names, values, strict=True)})
    return stack
