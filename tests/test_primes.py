"""Primes in another normal form, script or case are recognised, and the nearest spelling offered."""

import unicodedata

import pytest
from conftest import CORPUS
from hypothesis import given
from hypothesis import strategies as st

from charrnn.generate.primes import Prime, examine
from charrnn.generate.transliteration import to_cyrillic, to_latin
from charrnn.text.tokenizer import Tokenizer

SERBIAN = CORPUS.read_text(encoding="utf-8")
LATIN = Tokenizer.char(SERBIAN)
CYRILLIC = Tokenizer.char(to_cyrillic(SERBIAN))
ENGLISH = Tokenizer.char("abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPRSTUVWYZ.,'-\n")


def test_a_prime_the_model_knows_is_left_alone() -> None:
    assert examine("Rekurentne mreže", LATIN) == Prime("Rekurentne mreže")
    assert examine("", LATIN) == Prime("")
    assert examine("Рекурентне 日本", Tokenizer.byte()) == Prime("Рекурентне 日本")


def test_another_normal_form_is_read_in_the_known_one_and_said() -> None:
    found = examine(unicodedata.normalize("NFD", "mreža šumi"), LATIN)
    assert (found.text, found.suggestion, found.unknown) == ("mreža šumi", None, ())
    assert "NFC" in found.notes[0]
    decomposed = Tokenizer.char(unicodedata.normalize("NFD", SERBIAN))
    found = examine("mreža", decomposed)
    assert found.text == unicodedata.normalize("NFD", "mreža")
    assert "NFD" in found.notes[0]


@pytest.mark.parametrize(
    ("prime", "read", "said"),
    [
        ("K at 5 \u212a", "K at 5 K", "with K for U+212A (kelvin sign)"),
        ("5 \u2126", "5 Ω", "with Ω for U+2126 (ohm sign)"),
        ("K\u2000K", "K\u2002K", "with U+2002 (en space) for U+2000 (en quad)"),
        ("\u0958", "\u0915\u093c", "for U+0958 (devanagari letter qa)"),
    ],
)
def test_a_sign_that_is_a_letter_to_unicode_is_read_as_that(prime: str, read: str, said: str) -> None:
    found = examine(prime, Tokenizer.char("KatΩ 5\u2002\u0915\u093c"))
    assert (found.text, found.suggestion, found.unknown) == (read, None, ())
    assert said in found.notes[0]


def test_a_byte_order_mark_is_no_part_of_a_prime() -> None:
    found = examine("\ufeffmreža", LATIN)
    assert (found.text, found.suggestion, found.unknown) == ("mreža", None, ())
    assert "byte order mark" in found.notes[0]
    marked = Tokenizer.char(SERBIAN + "\ufeff")  # unless the model learned it
    assert examine("\ufeffmreža", marked) == Prime("\ufeffmreža")


@pytest.mark.parametrize(
    ("prime", "tokenizer", "suggestion", "said"),
    [
        ("Рекурентне мреже", LATIN, "Rekurentne mreže", "Latin script"),
        ("Љубав и њушка, џак", LATIN, "Ljubav i njuška, džak", "Latin script"),
        ("Rekurentne mreže", CYRILLIC, "Рекурентне мреже", "Cyrillic script"),
        ("QUEEN", ENGLISH, "qUEEN", "other case"),
        ("don’t", ENGLISH, "don't", "plainer punctuation"),
        ("naïve", ENGLISH, "naive", "without accents"),
        ("ﬁne", ENGLISH, "fine", "plainer form"),
        ("Đorđe", ENGLISH, "Dorde", "without accents"),
    ],
)
def test_the_nearest_spelling_is_offered_but_not_taken(
    prime: str, tokenizer: Tokenizer, suggestion: str, said: str
) -> None:
    found = examine(prime, tokenizer)
    assert (found.text, found.suggestion) == (prime, suggestion)
    assert said in found.notes[-1]


def test_characters_the_model_never_saw_are_named() -> None:
    found = examine("mreža 日本\u200b", ENGLISH)
    assert found.unknown == ("ž", "日", "本", "\u200b")
    assert "日 本" in found.notes[0]
    assert "U+200B (zero width space)" in found.notes[0]
    assert found.suggestion == "mreza 日本"
    assert "日 本" in found.notes[1]
    assert " and 2 more" in examine("αβγδεζηθικ", ENGLISH).notes[0]


@given(st.text())
def test_any_text_can_be_examined(text: str) -> None:
    for tokenizer in (LATIN, CYRILLIC, ENGLISH):
        found = examine(text, tokenizer)
        assert unicodedata.normalize("NFC", found.text) == unicodedata.normalize("NFC", text)
        assert bool(found.unknown) == any(c not in tokenizer.characters for c in found.text)
        assert found.suggestion is None or found.notes


def test_serbian_goes_to_cyrillic_and_back_without_loss() -> None:
    assert to_latin(to_cyrillic(SERBIAN)) == SERBIAN
    assert not set(to_cyrillic(SERBIAN)) & set("abvgdđžćčšljn")


@pytest.mark.parametrize(
    ("latin", "cyrillic"),
    [
        ("ljubav, njiva, džep", "љубав, њива, џеп"),
        ("Ljubav LJUBAV Njegoš DŽEP LJ", "Љубав ЉУБАВ Његош ЏЕП Љ"),
        ("injekcija, konjugacija, nadživeti", "инјекција, конјугација, надживети"),
        ("KRALJ MARKO, KONJ. Marko Lj. i Nj-oj", "КРАЉ МАРКО, КОЊ. Марко Љ. и Њ-ој"),
        ("đak, čvor, ćup, žaba, šuma", "ђак, чвор, ћуп, жаба, шума"),
        ("Qwxy 123", "Qwxy 123"),
    ],
)
def test_digraphs_are_letters(latin: str, cyrillic: str) -> None:
    assert to_cyrillic(latin) == cyrillic
    assert to_latin(cyrillic) == latin.replace("DŽEP LJ", "DŽEP Lj")


def test_the_digraph_characters_of_unicode_are_read_too() -> None:
    assert to_cyrillic("ǆak Ǌ ǉ") == "џак Њ љ"
