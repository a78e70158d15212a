"""The tokenizer against Python's own UTF-8 codec and the Hugging Face `tokenizers` library."""

import json
import random
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from charrnn.errors import CharRNNError
from charrnn.text.tokenizer import BLOCK, TextStream, Tokenizer, count_characters

CORPUS = Path(__file__).parents[1] / "corpora" / "rekurentne.txt"
# Whatever a vocabulary or an encoder is likely to trip over: controls, BOM, private use, combining marks, the ends of
# every UTF-8 length, an emoji, and the replacement character itself.
UNUSUAL = (
    '\0\t\n\r \x1f"\\/<>x\x7f\x80\x85\xa0\u0301\u030c\u07ff\u0800\u2028\ud7ff'
    "\ue000\ufeff\ufffd\uffff\U00010000😀\U0010ffff"
)

scalars = st.characters(exclude_categories=["Cs"])
any_character = st.one_of(scalars, st.sampled_from(UNUSUAL))


@st.composite
def tokenizers_and_texts(draw):
    """A tokenizer of either kind and a text that mixes its characters with others."""
    tokenizer = Tokenizer.char(draw(st.sets(any_character, max_size=30)))
    known = st.sampled_from(tokenizer.characters) if tokenizer.characters else any_character
    return tokenizer, draw(st.text(st.one_of(known, any_character), max_size=60))


@st.composite
def tokenizers_and_ids(draw):
    """A tokenizer of either kind and any ids of it, bytes that are not UTF-8 among them."""
    tokenizer = Tokenizer.char(draw(st.sets(any_character, max_size=5)))
    a_byte = st.integers(0, 255)
    a_piece = st.one_of(
        st.integers(0, tokenizer.size - 1).map(lambda id_: [id_]),
        a_byte.map(lambda byte: [byte]),
        any_character.map(lambda character: list(character.encode())),
        st.just([tokenizer.size - 1]),
    )
    return tokenizer, [id_ for piece in draw(st.lists(a_piece, max_size=12)) for id_ in piece]


def library(tokenizer):
    return tokenizers.Tokenizer.from_str(tokenizer.canonical_json())


def reference_decode(tokenizer, ids):
    """Valid ids to text by Python's codec: raises UnicodeDecodeError where U+FFFD would be needed."""
    spelled = (bytes([i]) if i < 256 else tokenizer.characters[i - 256].encode() for i in ids)
    return b"".join(spelled).decode("utf-8")


def random_walk(tokenizer, seed, length):
    """At least `length` ids drawn along the automaton, bytes as often as characters, until a character is whole."""
    rng, state, ids = random.Random(seed), 0, []
    while len(ids) < length or state:
        choices = np.flatnonzero(tokenizer.allowed[state])
        kinds = [some for some in (choices[choices < 128], choices[(choices >= 128) & (choices < 256)]) if len(some)]
        kinds += [choices[choices >= 256]] * bool((choices >= 256).any())
        ids.append(int(rng.choice(rng.choice(kinds))))
        state = int(tokenizer.next_state[state, ids[-1]])
    return ids


# Ids


@given(tokenizers_and_texts())
def test_every_text_comes_back_whole(case):
    tokenizer, text = case
    ids = tokenizer.encode(text)
    assert ids.dtype == tokenizer.dtype
    assert ids.ndim == 1
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode(ids.tolist()) == text


@given(tokenizers_and_texts())
def test_known_characters_keep_one_id_and_others_are_spelled_in_utf8(case):
    tokenizer, text = case
    expected = []
    for character in text:
        known = character in tokenizer.characters
        expected += [256 + tokenizer.characters.index(character)] if known else character.encode()
    assert tokenizer.encode(text).tolist() == expected


@pytest.mark.parametrize("dtype", np.typecodes["AllInteger"])
@pytest.mark.parametrize("tokenizer", [Tokenizer.char("š"), Tokenizer.byte()], ids=repr)
def test_ids_of_any_integer_type_are_decoded(tokenizer, dtype):
    text = "abc" if np.dtype(dtype).itemsize == 1 else "abcš😀"
    ids = tokenizer.encode(text).astype(dtype)
    assert tokenizer.decode(ids) == text
    assert tokenizer.characters_in(ids) == len(text)


@pytest.mark.parametrize("tokenizer", [Tokenizer.char("aš"), Tokenizer.byte()], ids=repr)
def test_texts_longer_than_a_block_are_encoded_as_one(tokenizer):
    pieces = "aš" * (BLOCK // 2 - 1), "ж😀", "a" * BLOCK, "ж"
    text = "".join(pieces)
    assert tokenizer.encode(text).tolist() == [i for piece in pieces for i in tokenizer.encode(piece).tolist()]
    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.slow
def test_the_whole_of_unicode_is_a_vocabulary_with_wide_ids():
    everything = "".join(map(chr, (*range(0xD800), *range(0xE000, 0x110000))))
    tokenizer = Tokenizer.char(everything)
    ids = tokenizer.encode(everything)
    assert tokenizer.dtype == np.uint32
    assert ids.tolist() == list(range(256, tokenizer.size))
    assert tokenizer.decode(ids) == everything
    assert Tokenizer.byte().decode(Tokenizer.byte().encode(everything)) == everything


@pytest.mark.parametrize(("size", "dtype"), [(65534, np.uint16), (65535, np.uint32)])
def test_the_start_row_and_one_value_more_fit_the_dtype(size, dtype):
    tokenizer = Tokenizer.char(map(chr, range(0x10000, 0x10000 + size - 256)))
    last = tokenizer.characters[-1]
    assert tokenizer.size == size
    assert tokenizer.dtype == dtype
    assert size + 1 <= np.iinfo(tokenizer.dtype).max
    assert tokenizer.encode(last + "a").tolist() == [size - 1, ord("a")]


@pytest.mark.parametrize("tokenizer", [Tokenizer.char("ab"), Tokenizer.byte()], ids=repr)
@pytest.mark.parametrize("position", [0, 5, BLOCK + 5])
def test_a_lone_surrogate_is_an_error_that_says_where(tokenizer, position):
    text = "č" * position + "\ud83d" + "b"
    with pytest.raises(CharRNNError, match=rf"character {position} .*U\+D83D.*surrogate") as caught:
        tokenizer.encode(text)
    assert caught.value.hint
    repaired = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")  # what the hint says
    assert tokenizer.decode(tokenizer.encode(repaired)) == "č" * position + "\ufffdb"
    with pytest.raises(CharRNNError, match=rf"character {position} "):
        count_characters(text)


@pytest.mark.parametrize("ids", [[97, -1], [97, 258], [97, 2**40], [[97]], [1.5], ["a"], 97])
def test_ids_that_are_not_the_tokenizers_are_an_error(ids):
    tokenizer = Tokenizer.char("ab")
    for method in (tokenizer.decode, tokenizer.characters_in, tokenizer.spelled_in_bytes, tokenizer.character_index):
        with pytest.raises(CharRNNError, match=r"position 1|row of integers") as caught:
            method(ids)
        assert caught.value.hint


# Characters


@given(tokenizers_and_texts())
def test_characters_are_counted_and_indexed_whatever_spells_them(case):
    tokenizer, text = case
    ids = tokenizer.encode(text)
    index = [i for i, character in enumerate(text) for _ in tokenizer.encode(character)]
    assert tokenizer.characters_in(ids) == len(text)
    assert tokenizer.spelled_in_bytes(ids) == sum(character not in tokenizer.characters for character in text)
    assert tokenizer.character_index(ids).dtype == np.int64
    assert tokenizer.character_index(ids).tolist() == index


def test_ids_that_begin_inside_a_character_have_no_character_index():
    tokenizer = Tokenizer.char("a")
    with pytest.raises(CharRNNError, match="0xA1, inside a character"):
        tokenizer.character_index(tokenizer.encode("šaa")[1:])


@given(st.text(any_character))
def test_counting_pieces_counts_the_whole(text):
    middle = len(text) // 2
    assert count_characters(text) == Counter(text)
    assert count_characters(text[:middle]) + count_characters(text[middle:]) == Counter(text)


def test_a_text_of_many_blocks_is_counted_whole():
    text = CORPUS.read_text("utf-8") * 8
    assert len(text) > BLOCK * 32
    assert count_characters(text) == Counter(text)


def test_rare_characters_are_left_to_the_bytes():
    tokenizer = Tokenizer.from_counts(count_characters("aaaabbbcc😀"))
    assert tokenizer.characters == ("a", "b")
    assert Tokenizer.from_counts(count_characters("aaaabbbcc😀"), minimum=1).characters == ("a", "b", "c", "😀")


# The library


@given(tokenizers_and_texts())
def test_ids_equal_the_librarys(case):
    tokenizer, text = case
    assert tokenizer.encode(text).tolist() == library(tokenizer).encode(text).ids


@pytest.mark.parametrize("tokenizer", [Tokenizer.char(UNUSUAL), Tokenizer.char(UNUSUAL[::2]), Tokenizer.byte()])
def test_the_library_reads_the_saved_file_and_agrees(tokenizer, tmp_path):
    path = tmp_path / "tokenizer.json"
    tokenizer.save(path)
    theirs = tokenizers.Tokenizer.from_file(str(path))
    for text in (UNUSUAL, UNUSUAL[::-1], CORPUS.read_text("utf-8")[:5000], *UNUSUAL):
        ids = theirs.encode(text).ids
        assert tokenizer.encode(text).tolist() == ids
        assert theirs.decode(ids) == text
    assert theirs.get_vocab_size() == tokenizer.size
    assert Tokenizer.from_json(theirs.to_str(), "the library's copy") == tokenizer


@pytest.mark.slow
@settings(max_examples=500)
@given(tokenizers_and_ids())
def test_decoding_equals_the_librarys_on_any_ids(case):
    tokenizer, ids = case
    assert tokenizer.decode(ids) == library(tokenizer).decode(ids)


def test_a_character_is_not_pieced_together_across_another():
    tokenizer = Tokenizer.char("a")
    lead, continuation = "š".encode()
    assert tokenizer.decode([lead, 256, continuation]) == "\ufffda\ufffd"


@given(st.text(st.sampled_from("aesžšćđ\u030c\u0301\u0323각ᄀ ᅡΩÅ\n"), max_size=30))
def test_nfc_is_the_librarys(text):
    tokenizer = Tokenizer.char("aešžé", normalize="nfc")
    assert tokenizer.encode(tokenizer.clean(text)).tolist() == library(tokenizer).encode(text).ids
    assert Tokenizer.char("a").clean(text) == text


@pytest.mark.timing
@pytest.mark.parametrize("minimum", [1, 3])
def test_encoding_is_fifty_times_as_fast_as_the_librarys(minimum):
    once = CORPUS.read_text("utf-8")
    text = (once * 2)[:200_000]
    tokenizer = Tokenizer.from_counts(count_characters(once), minimum)
    theirs = library(tokenizer)
    assert tokenizer.encode(text).tolist() == theirs.encode(text).ids  # and both are warm
    seconds = {"ours": [], "theirs": []}
    for _ in range(6):  # interleaved, so that a busy moment meets both
        for name, encode, times in (("theirs", theirs.encode, 1), ("ours", tokenizer.encode, 20)):
            for _ in range(times):
                start = time.perf_counter()
                encode(text)
                seconds[name].append(time.perf_counter() - start)
    assert min(seconds["theirs"]) >= 50 * min(seconds["ours"])


# The automaton


def run_automaton(tokenizer, ids):
    """The state after ids, or -1 as soon as one may not follow."""
    state = 0
    for id_ in ids:
        if state < 0 or not tokenizer.allowed[state, id_]:
            return -1
        state = int(tokenizer.next_state[state, id_])
    return state


def test_the_automaton_accepts_the_encodings_of_all_code_points_and_no_others():
    next_state = Tokenizer.byte().next_state
    for first, last, length in ((0, 0x80, 1), (0x80, 0x800, 2), (0x800, 0x10000, 3), (0x10000, 0x110000, 4)):
        text = "".join(chr(code) for code in range(first, last) if not 0xD800 <= code < 0xE000)
        spelled = np.frombuffer(text.encode("utf-8"), np.uint8).reshape(-1, length)
        state = np.zeros(len(spelled), np.int8)
        for place in range(length):
            state = next_state[state, spelled[:, place]]
            assert (state == 0).all() if place == length - 1 else (state > 0).all()
        # All of them are accepted; when as many byte strings are accepted as there are code points, no other one is.
        paths = np.zeros(8, np.int64)
        paths[0] = 1  # how many byte strings of this length lead from state 0 to each state, with no stop at 0
        for place in range(length):
            begun, paths = paths, np.zeros(8, np.int64)
            for state_ in range(8):
                if place == 0 or state_ > 0:
                    after = next_state[state_][next_state[state_] >= 0]
                    paths += begun[state_] * np.bincount(after, minlength=8)
        assert paths[0] == len(text)
    assert not paths[1:].any()  # no character is longer than 4 bytes


@settings(max_examples=500)
@given(
    st.lists(
        st.one_of(st.binary(max_size=4), any_character.map(str.encode), any_character.map(lambda c: c.encode()[:-1])),
        max_size=5,
    ).map(b"".join)
)
def test_the_automaton_accepts_what_the_codec_accepts(spelled):
    try:
        text = spelled.decode("utf-8")
    except UnicodeDecodeError:
        text = None
    assert (run_automaton(Tokenizer.byte(), spelled) == 0) == (text is not None)
    known = Tokenizer.char("aš")  # what has an id of its own is not spelled
    assert (run_automaton(known, spelled) == 0) == (text is not None and not set(text) & set("aš"))


@pytest.mark.parametrize(
    "characters",
    [
        "",
        "aš",
        "".join(map(chr, range(0x400, 0x440))),  # all that begin with one byte, which then may not be drawn
        "".join(map(chr, range(0x4E00, 0x9FFF, 7))) + "😀🙂",
        "".join(map(chr, range(0x40000, 0x80000, 64))),  # one of each three bytes
        "".join(map(chr, range(0x10000, 0x20000))),  # all that begin with two bytes
    ],
)
def test_the_automaton_accepts_one_spelling_of_every_character(characters):
    tokenizer = Tokenizer.char(characters)
    states, others, paths = len(tokenizer.next_state), 0x110000 - 0x800 - len(characters), np.zeros(1, np.int64)
    leading = np.stack([np.bincount(row[row >= 0], minlength=states) for row in tokenizer.next_state[:, :256]])
    paths = leading[0]
    ended = paths[0]
    for _ in range(3):
        paths = paths[1:] @ leading[1:]
        ended += paths[0]
    assert ended == others
    assert not paths[1:].any()
    assert (tokenizer.next_state[0, 256:] == 0).all()
    # No dead end: from every state that is reached there is a way on.
    reached = np.unique(tokenizer.next_state[tokenizer.next_state >= 0])
    assert tokenizer.allowed[reached].any(axis=1).all()
    for character in [*characters[:3], *characters[-3:]]:
        assert run_automaton(tokenizer, character.encode()) == -1
        assert run_automaton(tokenizer, tokenizer.encode(character)) == 0


def test_never_bytes_and_all_characters():
    tokenizer = Tokenizer.char("aš")
    assert tokenizer.allowed.shape == tokenizer.next_state.shape == (9, 258)  # š gives what begins it a state
    assert Tokenizer.byte().allowed.shape == (8, 256)
    assert not tokenizer.allowed[:, [0xC0, 0xC1, *range(0xF5, 0x100)]].any()
    assert tokenizer.allowed[0, 256:].all()
    assert not tokenizer.allowed[1:, 256:].any()
    assert np.flatnonzero(~tokenizer.allowed[0, :0x80]).tolist() == [ord("a")]
    assert tokenizer.allowed.any(axis=1).all()
    assert ((tokenizer.next_state >= 0) == tokenizer.allowed).all()


@given(st.sets(any_character, max_size=5), st.integers(0, 2**32), st.integers(0, 60))
def test_walks_along_the_automaton_decode_without_replacement_and_stream_alike(characters, seed, length):
    tokenizer = Tokenizer.char(characters)
    ids = random_walk(tokenizer, seed, length)
    text = reference_decode(tokenizer, ids)
    assert tokenizer.decode(ids) == text
    assert tokenizer.encode(text).tolist() == ids
    stream = TextStream(tokenizer)
    pieces = []
    for id_ in ids:
        pieces.append(stream.push(id_))
        assert len(pieces[-1]) == (stream.state == 0)
    assert "".join(pieces) == text
    assert tokenizer.characters_in(ids) == len(text)


@given(tokenizers_and_texts())
def test_streaming_equals_decoding(case):
    tokenizer, text = case
    stream = TextStream(tokenizer)
    assert "".join(map(stream.push, tokenizer.encode(text))) == text


@pytest.mark.parametrize(
    ("before", "id_"), [([], 0xA1), ([], 0xC0), ([0xC5], 256), ([0xE0], 0x80), ([], 258), ([], -1)]
)
def test_a_stream_refuses_an_id_that_may_not_follow_and_goes_on(before, id_):
    stream = TextStream(Tokenizer.char("ab"))
    for earlier in before:
        stream.push(earlier)
    with pytest.raises(CharRNNError, match=rf"id {id_} "):
        stream.push(id_)
    rest = {(): "c", (0xC5,): "š", (0xE0,): "ࠀ"}[tuple(before)]
    assert "".join(map(stream.push, rest.encode()[len(before) :])) == rest


@pytest.mark.parametrize("normalize", ["none", "nfc"])
@pytest.mark.parametrize("characters", ["", UNUSUAL, '\x00\x1f\x7f\u2028"\\/'])
def test_the_librarys_file_is_letter_for_letter_the_one_that_names_ids_on_disk(characters, normalize):
    tokenizer = Tokenizer.char(characters, normalize)
    assert tokenizer.to_json() == tokenizer.canonical_json()


@pytest.mark.slow
def test_the_librarys_file_names_every_character_as_ours_does():
    tokenizer = Tokenizer.char(chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000)
    assert tokenizer.to_json() == tokenizer.canonical_json()


@given(tokenizers_and_texts(), st.sampled_from(["none", "nfc"]))
def test_the_librarys_object_gives_the_same_ids_and_text(case, normalize):
    tokenizer = Tokenizer.char(case[0].characters, normalize)
    theirs, text = tokenizer.huggingface(), case[1]
    if normalize == "none":  # of NFC, the library carries older tables
        assert theirs.encode(text).ids == tokenizer.encode(text).tolist()
    assert theirs.decode(tokenizer.encode(text).tolist()) == text
    assert type(theirs.normalizer).__name__ == ("NFC" if normalize == "nfc" else "NoneType")


# Files


@given(st.sets(any_character, max_size=30), st.sampled_from(["none", "nfc"]))
def test_json_brings_the_same_tokenizer_back(characters, normalize):
    tokenizer = Tokenizer.char(characters, normalize)
    again = Tokenizer.from_json(tokenizer.to_json(), "memory")
    assert again == tokenizer
    assert hash(again) == hash(tokenizer)
    assert (again.kind, again.normalize) == (tokenizer.kind, normalize)


def test_saving_and_loading_brings_the_same_tokenizer_back(tmp_path):
    for tokenizer in (
        Tokenizer.byte(),
        Tokenizer.char(UNUSUAL),
        Tokenizer.from_counts(Counter(CORPUS.read_text("utf-8"))),
    ):
        tokenizer.save(tmp_path / "tokenizer.json")
        assert Tokenizer.load(tmp_path / "tokenizer.json") == tokenizer


def without(document, key):
    return {name: value for name, value in document.items() if name != key}


def with_model(document, **changes):
    return {**document, "model": {**document["model"], **changes}}


def with_vocab(document, vocab):
    return with_model(document, vocab=vocab)


def swapped(vocab, one, other):
    return {**vocab, one: vocab[other], other: vocab[one]}


BYTE_VOCAB = json.loads(Tokenizer.byte().to_json())["model"]["vocab"]
VOCAB = {**BYTE_VOCAB, "a": 256, "b": 257}
MALFORMED = {
    "not an object": (lambda d: [], "list"),
    "no model": (lambda d: without(d, "model"), "'model'"),
    "model is null": (lambda d: {**d, "model": None}, "None"),
    "no vocab": (lambda d: {**d, "model": without(d["model"], "vocab")}, "'vocab'"),
    "vocab is a list": (lambda d: with_vocab(d, list(VOCAB)), "list"),
    "an empty vocab": (lambda d: with_vocab(d, {}), "<0x00>"),
    "a byte is missing": (lambda d: with_vocab(d, without(VOCAB, "<0x41>")), "<0x42>.*66.*65"),
    "the last byte is missing": (lambda d: with_vocab(d, without(BYTE_VOCAB, "<0xFF>")), "<0xFF>"),
    "bytes out of order": (lambda d: with_vocab(d, swapped(VOCAB, "<0x41>", "<0x42>")), "<0x42>.*<0x41>"),
    "characters out of order": (lambda d: with_vocab(d, swapped(VOCAB, "a", "b")), "'a' follows 'b'"),
    "a gap": (lambda d: with_vocab(d, {**VOCAB, "c": 259}), "'c' has id 259.*258"),
    "an id twice": (lambda d: with_vocab(d, {**VOCAB, "c": 257}), "has id 257.*258"),
    "a negative id": (lambda d: with_vocab(d, {**VOCAB, "c": -1}), "'c' has id -1"),
    "an id that is true": (lambda d: with_vocab(d, {**VOCAB, "<0x01>": True}), "<0x01>.*True"),
    "an id with a fraction": (lambda d: with_vocab(d, {**VOCAB, "c": 258.0}), "258.0"),
    "two characters in a token": (lambda d: with_vocab(d, {**VOCAB, "cc": 258}), "'cc'"),
    "an empty token": (lambda d: with_vocab(d, {**VOCAB, "": 258}), "''"),
    "a surrogate token": (lambda d: with_vocab(d, {**VOCAB, "\ud83d": 258}), "ud83d"),
    "merges": (lambda d: with_model(d, merges=[["a", "b"]]), "model.merges"),
    "no byte fallback": (lambda d: with_model(d, byte_fallback=False), "model.byte_fallback"),
    "byte fallback is 1": (lambda d: with_model(d, byte_fallback=1), "model.byte_fallback"),
    "an unknown token": (lambda d: with_model(d, unk_token="a"), "model.unk_token"),
    "dropout": (lambda d: with_model(d, dropout=0.1), "model.dropout"),
    "another model": (lambda d: with_model(d, type="WordPiece"), "model.type"),
    "a key too many": (lambda d: {**d, "extra": 1}, "extra"),
    "a key too few": (lambda d: without(d, "decoder"), "decoder is missing"),
    "another normalizer": (lambda d: {**d, "normalizer": {"type": "NFD"}}, "normalizer"),
    "no normalizer key": (lambda d: without(d, "normalizer"), "normalizer"),
    "a pre-tokenizer": (lambda d: {**d, "pre_tokenizer": {"type": "Whitespace"}}, "pre_tokenizer"),
    "no decoder": (lambda d: {**d, "decoder": None}, "decoder is null"),
    "added tokens": (lambda d: {**d, "added_tokens": [{"id": 0, "content": "<s>"}]}, "added_tokens"),
    "another version": (lambda d: {**d, "version": "2.0"}, "version"),
}


@pytest.mark.parametrize(("change", "problem"), MALFORMED.values(), ids=MALFORMED)
def test_a_changed_file_is_an_error_that_says_what_is_wrong(change, problem, tmp_path):
    path = tmp_path / "tokenizer.json"
    document = json.loads(Tokenizer.char("ab").to_json())
    path.write_text(json.dumps(document), "utf-8")
    assert Tokenizer.load(path) == Tokenizer.char("ab")
    path.write_text(json.dumps(change(document)), "utf-8")
    with pytest.raises(CharRNNError, match=f"(?s)tokenizer.json: .*{problem}") as caught:
        Tokenizer.load(path)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "Expecting value"),
        (b"{", "JSONDecodeError"),
        (b"[" * 100_000, "nested too deeply"),
        (b"\xff", "byte 0 is not UTF-8"),
        (Tokenizer.char("a").to_json().encode().replace(b'"a": 256', b'"a": 256, "a": 256'), "'a' comes twice"),
    ],
    ids=["empty", "cut short", "nested", "not UTF-8", "a key twice"],
)
def test_a_file_that_is_not_json_is_an_error(content, problem, tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content)
    with pytest.raises(CharRNNError, match=problem) as caught:
        Tokenizer.load(path)
    assert caught.value.problem.startswith(f"{path}: ")
    assert caught.value.hint


def test_paths_that_cannot_be_used_are_errors(tmp_path):
    with pytest.raises(CharRNNError, match="nowhere"):
        Tokenizer.load(tmp_path / "nowhere.json")
    with pytest.raises(CharRNNError, match="nowhere"):
        Tokenizer.byte().save(tmp_path / "nowhere" / "tokenizer.json")


# The object


def test_equal_vocabularies_make_equal_tokenizers():
    assert Tokenizer.char("ba") == Tokenizer.char(["a", "b", "a"])
    assert Tokenizer.char("ab") != Tokenizer.char("abc")
    assert Tokenizer.char("ab") != Tokenizer.char("ab", "nfc")
    assert Tokenizer.char("") == Tokenizer.byte()  # no characters: everything is spelled in bytes
    assert repr(Tokenizer.char("ab")) == "Tokenizer(char, 2 characters, V = 258)"
    assert repr(Tokenizer.byte("nfc")) == "Tokenizer(byte, 0 characters, V = 256, nfc)"


def test_a_tokenizer_cannot_be_changed():
    tokenizer = Tokenizer.char("ab")
    with pytest.raises(AttributeError):
        tokenizer.characters = ("a",)
    for table in (tokenizer.allowed, tokenizer.next_state):
        with pytest.raises(ValueError, match="read-only"):
            table[0, 0] = 0


@pytest.mark.parametrize("characters", [["ab"], [""], ["\udc00"]])
def test_only_single_characters_make_a_vocabulary(characters):
    with pytest.raises(CharRNNError, match="single characters"):
        Tokenizer.char(characters)


@pytest.mark.parametrize(("characters", "normalize"), [(("b", "a"), "none"), (("a", "a"), "none"), (("a",), "NFC")])
def test_a_tokenizer_made_by_hand_is_checked(characters, normalize):
    with pytest.raises(CharRNNError):
        Tokenizer(characters, normalize)
