"""A model as a plain torch module, and back: the same numbers, both ways; what cannot be taken is refused."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import decided
from torch import nn

import charrnn
from charrnn.api import TextModel
from charrnn.errors import CharRNNError
from charrnn.model.architecture import Architecture
from charrnn.model.rnn import CharRNN
from charrnn.model.torch_module import CellLayers, DirectConnections
from charrnn.text.tokenizer import Tokenizer

PAGE = Path(__file__).parent.parent / "docs" / "completing.md"
TOKENIZER = Tokenizer.char("Rekurntmž: ")
V = TOKENIZER.size


def made(**settings: Any) -> TextModel:
    config = decided(**settings)
    weights = Architecture.of(config, V).initial(1, bound=0.5)
    if config.direct:  # tables are zeros at first
        weights["direct"] = np.random.default_rng(2).normal(size=weights["direct"].shape).astype(np.float32)
    return TextModel(config, TOKENIZER, weights)


def tables(vocabulary: int = V, rows: int = 50) -> DirectConnections:
    """Direct connections of 50 rows, as they say, and of so many as are given."""
    architecture = Architecture("gru", vocabulary, 5, direct=2, direct_rows=50)
    return DirectConnections(architecture, torch.zeros(2 * rows, vocabulary - architecture.columns.start))


def parts(rnn: nn.Module | None = None, V: int = V, **other: Any) -> nn.ModuleDict:
    """A module of a person's own, which connects its parts elsewhere."""
    whole = {"table": nn.Embedding(V + 1, 6), "layers": rnn or nn.LSTM(6, 5), "out": nn.Linear(5, V)}
    return nn.ModuleDict({**whole, **other})


@pytest.mark.parametrize(
    ("settings", "kind"),
    [
        ({"cell": "nn.LSTM", "layers": 2}, nn.LSTM),
        ({"cell": "lstm"}, nn.LSTM),
        ({"cell": "nn.GRU", "one_hot": True}, nn.GRU),
        ({"cell": "nn.RNN", "tie": True}, nn.RNN),
        ({"cell": "simple"}, nn.RNN),
        ({"cell": "gru", "layers": 2}, CellLayers),
        ({"cell": "slstm"}, CellLayers),
        ({"cell": "mogrifier-lstm", "cell_options": {"rounds": 2}}, CellLayers),
        ({"cell": "nn.LSTM", "layers": 3, "residual": True}, CellLayers),
        ({"cell": "nn.LSTM", "layers": 2, "direct": 4, "direct_rows": 50}, nn.LSTM),
        ({"cell": "gru", "direct": 1, "direct_rows": 50}, CellLayers),
    ],
)
def test_the_module_computes_what_the_model_does_and_comes_back(settings: dict[str, Any], kind: type) -> None:
    model = made(**settings)
    module = model.torch()
    assert type(module.rnn) is kind
    ids = torch.randint(0, V + 1, (7, 3), generator=torch.Generator().manual_seed(5))
    reference = CharRNN(model.architecture, model.weights, "loop")
    expected, _ = reference(ids, reference.start(3))
    logits, state = module(ids[:4])
    rest, _ = module(ids[4:], state)
    found = torch.cat([logits, rest]).detach()
    np.testing.assert_allclose(found, expected.detach(), rtol=1e-5, atol=1e-5)

    again = charrnn.from_torch(module, TOKENIZER)
    assert again.score("Rekurentne: ж").nats == pytest.approx(model.score("Rekurentne: ж").nats, rel=1e-6)
    assert again.next("Rek") == [(c, pytest.approx(p, rel=1e-5)) for c, p in model.next("Rek")]
    rest.sum().backward()
    module.head.weight.data.zero_()  # a copy, which the models do not see
    np.testing.assert_array_equal(again.torch().head.weight.detach(), model.torch().head.weight.detach())


def test_the_state_dict_has_torchs_own_names() -> None:
    names = set(made(cell="nn.GRU").torch().state_dict())
    layer = {f"rnn.{name}_l0" for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}
    assert names == {"embedding.weight", "head.weight", "head.bias"} | layer
    assert {"rnn.layers.0.W", "rnn.layers.1.U"} <= set(made(cell="gru", layers=2).torch().state_dict())
    with_tables = made(cell="nn.GRU", direct=2, direct_rows=50).torch().state_dict()
    assert set(with_tables) == names | {"direct.weight"}


def test_the_tables_of_a_module_train() -> None:
    module = made(cell="gru", direct=2, direct_rows=50).torch()
    ids = torch.tensor(TOKENIZER.encode("Rekurentne").tolist())[:, None]
    module(ids)[0][..., TOKENIZER.encode("k")[0]].sum().backward()
    assert module.direct is not None
    learned = module.direct.weight.grad
    assert learned is not None
    assert 0 < np.count_nonzero(learned.any(dim=1)) <= 2 * len(ids)


@pytest.mark.parametrize("rnn", [nn.LSTM(6, 5, 2), nn.GRU(6, 5), nn.RNN(6, 5)])
def test_a_module_of_ones_own_is_taken(rnn: nn.RNNBase) -> None:
    module = parts(rnn)
    ids = torch.tensor([V, *TOKENIZER.encode("Rekur").tolist()])[:, None]
    y, _ = rnn(module["table"](ids[:-1]))
    expected = nn.functional.cross_entropy(module["out"](y).flatten(0, 1), ids[1:].flatten())
    model = charrnn.from_torch(module, "Rekurntmž: ")
    assert model.score("Rekur").nats == pytest.approx(expected.item(), rel=1e-5)
    assert model.complete("Rek", chars=5, temperature=0) == model.complete("Rek", chars=5, top_k=1)
    with pytest.raises(CharRNNError):
        model.training_text()


@pytest.mark.parametrize(
    ("module", "said"),
    [
        (nn.Linear(3, 4), "0 parts of the kind nn.Embedding"),
        (parts(more=nn.LSTM(5, 5)), "2 parts of the kind nn.RNNBase"),
        (parts(norm=nn.LayerNorm(5)), "parameters beside its three parts: norm.weight, norm.bias"),
        (parts(V=V - 1), f"{V} rows and the head {V - 1} outputs, of a vocabulary of {V} ids"),
        (parts(nn.LSTM(6, 5, bidirectional=True)), "reads both ways"),
        (parts(nn.RNN(6, 5, nonlinearity="relu")), "relu"),
        (parts(nn.GRU(7, 5)), "sizes of the parts do not fit"),
        (parts(nn.GRU(6, 4)), "sizes of the parts do not fit"),
        (parts(table=nn.Embedding(V + 1, 6, max_norm=1.0)), "bounds the norm"),
        (parts(one=tables(), two=tables()), "2 parts with direct connections, expected 1 at most"),
        (parts(direct=tables(V - 1)), f"direct connections are of a vocabulary of {V - 1} ids, not {V}"),
        (parts(direct=tables(rows=49)), "sizes of the parts do not fit: weight 'direct' has shape (98, "),
    ],
)
def test_what_cannot_be_taken_is_refused(module: nn.Module, said: str) -> None:
    with pytest.raises(CharRNNError, match=re.escape(said)):
        charrnn.from_torch(module, TOKENIZER)


def test_the_lines_of_the_page_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    section = PAGE.read_text(encoding="utf-8").partition("## In torch\n")[2].partition("\n## ")[0]
    there, back = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    exec(there, {})
    said = re.fullmatch(r"(.) (\S+) \[\('(.)', (\S+)\)\]\n", capsys.readouterr().out)
    assert said is not None
    assert said[1] == said[3] == "e"
    assert float(said[2]) == pytest.approx(float(said[4]), rel=1e-5)
    assert (tmp_path / "rekurentne.safetensors").is_file()
    torch.manual_seed(7)
    exec(back, {})
    completed, _, bits = capsys.readouterr().out.rpartition(" ")
    assert completed.startswith("ram")
    assert float(bits) < 1
