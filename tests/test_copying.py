"""What a completion copies from the training text is found exactly, and kept as short as asked."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import CORPUS
from hypothesis import example, given
from hypothesis import strategies as st

from charrnn import api
from charrnn.errors import CharRNNError
from charrnn.generate import copying
from charrnn.generate.copying import CopyLimit, TrainingText
from charrnn.generate.sampling import Sampling
from charrnn.text import copies as texts
from charrnn.text.corpus import Text
from charrnn.text.tokenizer import Tokenizer

SERBIAN = CORPUS.read_text(encoding="utf-8")


def searchable(text: str, folder: Path, split: tuple[float, ...] = (1.0, 0.0, 0.0)) -> TrainingText:
    path = folder / "text.utf8"
    path.write_bytes(text.encode("utf-8"))
    return TrainingText(Text(path, "", len(text), "text"), split)


def longest_by_trying(text: str, training: str) -> int:
    return max(
        (n for i in range(len(text)) for n in range(len(text) - i + 1) if text[i : i + n] in training), default=0
    )


@given(
    st.text("abč", max_size=60) | st.text("ab日\U0001f600", max_size=30),
    st.text("abčd日", max_size=30),
    st.integers(1, 9),
)
@example("a" * 50, "a" * 40, 2)
@example("", "a", 1)
@example("abababab", "babababac", 3)
def test_the_longest_passage_is_what_trying_everything_finds(training: str, text: str, piece: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(copying, "PIECE", piece)
        patch.setattr(copying, "PAIRS", 2 * piece)
        found = searchable(training, Path(folder)).longest(text)
        assert len(found.text) == longest_by_trying(text, training)
        assert found.text in text
        assert training[found.offset : found.offset + len(found.text)] == found.text


def test_only_the_training_part_counts(tmp_path: Path) -> None:
    text = searchable("abcdefgh" + "ijklmnop" + "qrst", tmp_path, (0.4, 0.4, 0.2))
    assert text.longest("ghijkl mnopq").text == "gh"
    assert text.longest("xyz").text == ""
    assert not text.has(b"hi")
    assert text.followers(b"g") == {"h"}
    assert text.followers(b"h") == frozenset()


def test_passages_are_found_across_pieces_in_a_long_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(texts, "CHUNK_CHARACTERS", 1000)
    monkeypatch.setattr(copying, "PIECE", 300)
    text = searchable(SERBIAN, tmp_path)
    for offset in (0, 950, 1190, 77_777):
        passage = SERBIAN[offset : offset + 120]
        found = text.longest("Ovde: " + passage + "@@")
        assert passage in found.text
        assert SERBIAN[found.offset :].startswith(found.text)


@pytest.mark.parametrize("tokenizer", [Tokenizer.char(SERBIAN), Tokenizer.byte(), Tokenizer.char("abcdefgh ")])
def test_exactly_the_characters_that_would_copy_too_much_are_forbidden(tokenizer: Tokenizer, tmp_path: Path) -> None:
    training = "abab čak ače, aču ačč 日本"
    text = searchable(training, tmp_path)
    limit = 3
    for drawn in ("", "a", "ab", "xab", " a", "zzač", "ač", "  ", "č", "čč", " 日"):
        forbidden = CopyLimit(text, tokenizer, limit).forbidden(drawn, b"")
        for c in "abčkeu, 日本z":
            copies = len(drawn) >= 2 and drawn[-2:] + c in training
            ids = tokenizer.encode(c).tolist()
            for j, id_ in enumerate(ids):
                pending = bytes(ids[:j])
                blocked = id_ in (CopyLimit(text, tokenizer, limit).forbidden(drawn, pending) if j else forbidden)
                assert blocked == (copies and j == len(ids) - 1), (drawn, c, j)


@pytest.mark.slow
@pytest.mark.parametrize("tokenizer", ["char", "byte"])
def test_no_completion_copies_more_than_it_may(tokenizer: str, trained: Callable[..., Any]) -> None:
    model = api.load(trained(steps=40, hidden=32, lr=0.02, tokenizer=tokenizer))
    training = model.training_text()

    def longest(limit: int | None) -> int:
        completions = model.completions("Rek", 60, Sampling(0.3), 2, max_copy=limit)
        texts = ["".join(c for c, _ in one) for one in completions]
        assert [len(text) for text in texts] == [60, 60]
        return max(len(training.longest(text).text) for text in texts)

    assert longest(None) > 3
    assert longest(3) == 2
    assert longest(2) == 1


def test_a_limit_that_cannot_be_kept_is_refused(trained: Callable[..., Any]) -> None:
    model = api.load(trained())
    with pytest.raises(CharRNNError, match="2 or more"):
        list(next(model.completions("", 5, Sampling(), max_copy=1)))
