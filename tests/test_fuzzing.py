"""Everything that reads what a stranger may have written: any input is taken, or refused by the one error there is."""

import sys

import pytest

if sys.platform == "win32":
    pytest.skip("memory is measured in another way there", allow_module_level=True)

from fuzzing import READERS, Readers, fuzz


@pytest.fixture(scope="module")
def readers(tmp_path_factory: pytest.TempPathFactory) -> Readers:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CHARRNN_HOME", str(tmp_path_factory.mktemp("home")))
        return Readers(tmp_path_factory.mktemp("readers"))


def test_every_reader_is_tried(readers: Readers) -> None:
    assert tuple(readers.all) == READERS


@pytest.mark.parametrize("reader", READERS)
def test_any_input_is_taken_or_refused_in_words(reader: str, readers: Readers) -> None:
    figures = readers.fuzz(reader, 60)
    assert figures.inputs >= 60
    # Nearly all primes can be read, and nearly no answer is the right one.
    assert 0 < figures.refused < figures.inputs or reader in ("primes", "answers of a server")


@pytest.mark.long
@pytest.mark.parametrize("reader", READERS)
def test_any_of_many_inputs_is_taken_or_refused_in_words(reader: str) -> None:
    assert next(fuzz([reader], 100_000, number=1)).inputs >= 100_000
