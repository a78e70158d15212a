"""A model as one HTML file: it completes as `sample` does, without a network, whatever stands in texts and names."""

import base64
import hashlib
import itertools
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import decided

import charrnn
from charrnn.api import TextModel
from charrnn.cli import group
from charrnn.errors import CharRNNError, OptionError
from charrnn.generate.decoder import Decoder
from charrnn.generate.sampling import Sampling, cost, distribution, draws, generate, read_prime
from charrnn.model.architecture import Architecture
from charrnn.serve.page import files
from charrnn.sharing import page_file
from charrnn.text.tokenizer import Tokenizer
from charrnn.training.run import Run

TrainedRun = Callable[..., Run]
NODE = shutil.which("node")
needs_node = pytest.mark.skipif(NODE is None, reason="Node is not installed")
NEAR = 1e-5  # to a boundary between two ids: there a rounding may draw the other one
# The page's model without the page: what it says of questions, as JSON.
ASK = """
const { get, post, stream } = modules["server.js"];
const said = [];
for (const [route, body] of globalThis.questions) {
  if (route === "stream") {
    let text = "";
    for await (const piece of stream(body)) text += piece;
    said.push(text);
  } else said.push(route === "get" ? await get(body) : await post(route, body));
}
console.log(JSON.stringify(said));
process.exit(0);
"""


def asked(model: TextModel, questions: list[Any], tmp_path: Path, kind: Any = "float32") -> list[Any]:
    """Answers of the page's own code, run by Node."""
    whole = page_file.page(model, kind)
    given = re.search(r'<script type="application/json" id="model">(.*?)</script>', whole, re.DOTALL)
    script = re.search(r'<script type="module">(.*?)</script>', whole, re.DOTALL)
    assert given is not None
    assert script is not None
    # The modules of the views, which need a page, come after it.
    local = script[1][: script[1].index('modules["complete.js"] = ')]
    element = f"{{ textContent: {json.dumps(given[1])} }}"
    stub = f"""
globalThis.document = {{ getElementById: () => ({element}), documentElement: {{ dataset: {{}} }} }};
Object.defineProperty(globalThis, "navigator", {{ value: {{ language: "en" }}, configurable: true }});
globalThis.questions = {json.dumps(questions)};
"""
    program = f"{stub}\n{local}\n{ASK}"
    (tmp_path / "ask.mjs").write_text(program, encoding="utf-8")
    assert NODE is not None
    done = subprocess.run([NODE, "ask.mjs"], cwd=tmp_path, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr.decode()
    answers: list[Any] = json.loads(done.stdout)
    return answers


def first_difference(one: str, other: str) -> int | None:
    if one == other:
        return None
    return next(i for i in range(len(one) + 1) if one[: i + 1] != other[: i + 1])


def distance(model: TextModel, prime: str, text: str, sampling: Sampling) -> float:
    """How far the number that draws the character after `text` is from where another one begins.

    All characters are of the vocabulary, so that each is one id.
    """
    tokenizer = model.tokenizer
    decoder = Decoder(model.architecture, model.weights, "numpy")
    primed = read_prime(decoder, tokenizer, prime + text)
    logits, _ = decoder.step(np.array([primed.last]), primed.state)
    source = draws(sampling.seed, 0)
    u = [source.random() for _ in range(len(text) + 1)][-1]
    sums = np.cumsum(distribution(logits[0], tokenizer.allowed[0], sampling))
    return float(np.abs(sums - u).min())


@needs_node
@pytest.mark.parametrize("run", ["rekurentne", pytest.param("small", marks=pytest.mark.slow)])
def test_three_seeds_give_the_text_of_sample(run: str, trained: TrainedRun, tmp_path: Path) -> None:
    model = charrnn.load(run if run == "rekurentne" else trained(cell="nn.GRU", layers=2, steps=60))
    prime = "Rekurentne mreže " if run == "rekurentne" else "the quick "
    samplings = [Sampling(0.8, seed=1), Sampling(1.0, seed=2), Sampling(0.7, top_p=0.9, seed=2**33)]
    questions = [
        (
            "stream",
            {"prompt": prime, "max_tokens": 2000, "temperature": s.temperature, "top_p": s.top_p or 1, "seed": s.seed},
        )
        for s in samplings
    ]
    for text, sampling in zip(asked(model, questions, tmp_path), samplings, strict=True):
        (stream,) = model.completions(prime, 2000, sampling)
        expected = stream.completion().text
        at = first_difference(text, expected)
        if at is not None:
            assert distance(model, prime, expected[:at], sampling) < NEAR, (sampling, at)


@needs_node
@pytest.mark.parametrize("kind", ["float32", "bf16", "int8"])
def test_it_scores_as_score_does(kind: Any, tmp_path: Path) -> None:
    model = charrnn.load("rekurentne")
    text = "Rekurentne mreže pamte. 𝄞 \u0161\u0301 abc\r\n\nŽ"
    (found,) = asked(model, [("/page/surprise", {"text": text})], tmp_path, kind)
    bits = model.score(text).per_char / np.log(2)
    assert found["text"] == text
    within = {"float32": 2e-5, "bf16": 0.05, "int8": 0.1}[kind]
    assert found["bits"] == pytest.approx(bits.tolist(), abs=within)
    assert found["bits_per_char"] == pytest.approx(float(bits.mean()), abs=within / 10)
    assert len(found["expected"]) == len(text)


@needs_node
def test_the_likeliest_characters_are_those_of_next(tmp_path: Path) -> None:
    model = charrnn.load("rekurentne")
    primes = ["", "Rekurentne mre", "š\u0301𝄞", "da li je "]
    answers = asked(model, [("/page/next", {"text": prime}) for prime in primes], tmp_path)
    for prime, answer in zip(primes, answers, strict=True):
        expected = model.next(prime, 5)
        assert [each["character"] for each in answer["next"]] == [character for character, _ in expected]
        assert [each["probability"] for each in answer["next"]] == pytest.approx([p for _, p in expected], abs=1e-5)


@needs_node
def test_endings_are_those_of_complete(tmp_path: Path) -> None:
    from charrnn.generate.candidates import ranked

    model, prime = charrnn.load("rekurentne"), "Rekurentne mreže "
    body = {"text": prime, "temperature": 0.8, "top_p": 1, "seed": 4, "count": 5}
    (answer,) = asked(model, [("/page/completions", body)], tmp_path)
    expected = ranked(model.completions(prime, 400, Sampling(0.8, seed=4), 5), "sentence")
    assert [each["text"] for each in answer["completions"]] == [each.text for each in expected]
    costs = [each["nats_per_char"] for each in answer["completions"]]
    assert costs == pytest.approx([each.nats_per_char for each in expected], abs=1e-4)


@needs_node
def test_a_text_that_goes_on_is_read_on(tmp_path: Path) -> None:
    """What was read before is remembered, and changes nothing."""
    model, long = charrnn.load("rekurentne"), "Rekurentne mreže pamte ono što su pročitale, i to dugo. " * 3
    primes = [long, long + "Da", long[:70], "Sasvim drugi tekst", long]
    answers = asked(model, [("/page/next", {"text": prime}) for prime in primes], tmp_path)
    for prime, answer in zip(primes, answers, strict=True):
        ((character, p),) = model.next(prime, 1)
        assert answer["next"][0]["character"] == character
        assert answer["next"][0]["probability"] == pytest.approx(p, abs=1e-5)


@needs_node
@pytest.mark.parametrize("document", ["line", "blank"])
def test_documents_end_and_begin_as_in_sample(document: str, trained: TrainedRun, tmp_path: Path) -> None:
    text = "abc ab\n\nabcab c\n\ncab\n\n" if document == "blank" else "abc ab\nabcab c\ncab\n"
    (tmp_path / "documents.txt").write_text(text * 200, encoding="utf-8")
    model = charrnn.load(trained(corpus=str(tmp_path / "documents.txt"), document=document, steps=60))
    primes = ["", "ab", "abc\n\nca", "abc\n\n"]
    questions = [("stream", {"prompt": prime, "max_tokens": 300, "temperature": 1, "seed": 5}) for prime in primes]
    for prime, text in zip(primes, asked(model, questions, tmp_path), strict=True):
        assert text == model.complete(prime, 300, temperature=1, seed=5), prime
    whole = "\n \nabc\n\n\n ab\n\t\n\nca\n\n"
    (found,) = asked(model, [("/page/surprise", {"text": whole})], tmp_path)
    assert found["bits"] == pytest.approx((model.score(whole).per_char / np.log(2)).tolist(), abs=2e-5)


@needs_node
def test_texts_are_cleaned_as_the_model_wants_them(trained: TrainedRun, tmp_path: Path) -> None:
    (tmp_path / "nfc.txt").write_text("čaša\nkuća\n" * 300, encoding="utf-8")
    model = charrnn.load(trained(corpus=str(tmp_path / "nfc.txt"), normalize="nfc", newline="lf"))
    (found,) = asked(model, [("/page/surprise", {"text": "c\u030cas\u030ca\r\nk\r"})], tmp_path)
    assert found["text"] == "čaša\nk\n"


def with_tables() -> TextModel:
    """A model whose direct connections say most of it; every third row is zero, as rows are that no text has."""
    tokenizer = Tokenizer.char("Rekurntmž: pšć")
    settings = decided(cell="nn.GRU", direct=4, direct_rows=500, document="line", newline="lf")
    weights = Architecture.of(settings, tokenizer.size).initial(1)
    weights["direct"] = np.random.default_rng(2).normal(size=weights["direct"].shape).astype(np.float32)
    weights["direct"][::3] = 0
    weights["head.b"][:256] -= 9  # bytes are as rare as they are in texts
    return TextModel(settings, tokenizer, weights)


def shown(model: TextModel, kind: Any) -> Any:
    """What a model's page is given, as an object."""
    found = re.search(r'<script type="application/json" id="model">(.*?)</script>', page_file.page(model, kind))
    assert found is not None
    return json.loads(found[1])


@needs_node
@pytest.mark.parametrize("kind", ["float32", "bf16", "int8"])
def test_direct_connections_are_those_of_the_model(kind: Any, tmp_path: Path) -> None:
    model, text = with_tables(), "Rekurentne mreže: 𝄞 mrm\nRek\npamte"
    decoder = Decoder(model.architecture, model.weights, "numpy")
    expected: list[float] = []
    for document in text.splitlines(keepends=True):
        ids = model.tokenizer.encode(document)
        logits, _ = decoder.logits(np.array([model.tokenizer.size, *ids[:-1]]), decoder.start())
        bits = [cost(row, id_) / np.log(2) for row, id_ in zip(logits, ids, strict=True)]
        expected += np.bincount(model.tokenizer.character_index(ids), bits).tolist()
    (found,) = asked(model, [("/page/surprise", {"text": text})], tmp_path, kind)
    assert found["bits"] == pytest.approx(expected, abs={"float32": 2e-5, "bf16": 0.05, "int8": 0.1}[kind])


@needs_node
def test_what_is_remembered_is_kept_with_the_states(tmp_path: Path) -> None:
    model, prime = with_tables(), "Rekurentne mreže pamte, " * 3  # longer than what is read between two kept states
    sampling = Sampling(0.8, seed=3)
    question = ("stream", {"prompt": prime, "max_tokens": 200, "temperature": 0.8, "seed": 3})
    answers = asked(model, [question, ("/page/next", {"text": prime + "R"}), question], tmp_path)
    decoder = Decoder(model.architecture, model.weights, "numpy")
    source = generate(decoder, model.tokenizer, read_prime(decoder, model.tokenizer, prime), sampling)
    expected = "".join(drawn.character for drawn in itertools.islice(source, 200)).partition("\n")
    assert answers[0] == answers[2] == expected[0] + expected[1]


def test_a_page_has_the_rows_that_are_not_zero() -> None:
    model = with_tables()
    kept = np.flatnonzero(model.weights["direct"].any(axis=1))
    tables = shown(model, "float32")["weights"]
    assert tables["direct"]["shape"] == [len(kept), model.architecture.vocabulary - 256]
    rows = np.frombuffer(base64.b64decode(tables["direct.rows"]["data"]), "<i4")
    assert rows.tolist() == kept.tolist()


def test_rows_have_scales_of_their_own() -> None:
    model = with_tables()
    model.weights["direct"][1] *= 1e6  # a scale of a column would leave nothing of the others
    packed = shown(model, "int8")["weights"]["direct"]
    wholes = np.frombuffer(base64.b64decode(packed["data"]), np.int8).reshape(packed["shape"])
    scales = np.frombuffer(base64.b64decode(packed["scale"]), "<f4")
    kept = model.weights["direct"][model.weights["direct"].any(axis=1)]
    error = abs(wholes * scales[:, None] - kept).max(axis=1)
    assert (error <= abs(kept).max(axis=1) / 254 * 1.001).all()


def test_the_policy_allows_what_is_in_the_file_and_nothing_else(trained: TrainedRun) -> None:
    whole = page_file.page(charrnn.load(trained()))
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', whole)
    assert policy is not None
    for tag in ('script type="module"', "style"):
        content = re.search(rf"<{tag}>(.*?)</{tag.split()[0]}>", whole, re.DOTALL)
        assert content is not None
        digest = base64.b64encode(hashlib.sha256(content[1].encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy[1]
    assert policy[1].startswith("default-src 'none'; ")
    assert "unsafe" not in policy[1]
    addresses = set(
        re.findall(
            r"(?:https?:)?//[\w.-]+\.\w+[\w/.-]*",
            whole.partition('id="model">')[0] + whole.rpartition('type="module">')[2],
        )
    )
    assert addresses <= {"http://www.w3.org/2000/svg"}


def test_no_text_ends_a_script(trained: TrainedRun, tmp_path: Path) -> None:
    characters = "</script><!--\u2028\u2029<script>alert(1)//"
    (tmp_path / "hostile.txt").write_text(characters * 400, encoding="utf-8")
    model = charrnn.load(trained(name="<!--<img src=x>", corpus=str(tmp_path / "hostile.txt")))
    whole = page_file.page(model)
    assert whole.count("</script>") == 2
    assert "<img" not in whole
    assert "<!--" not in whole
    assert not set(whole) & {"\u2028", "\u2029"}
    assert page_file.as_json("</SCRIPT>\u2028") == '"\\u003c/SCRIPT>\\u2028"'


def test_a_name_that_is_no_text_is_in_the_page_as_an_escape(trained: TrainedRun, tmp_path: Path) -> None:
    run = trained()
    model = charrnn.load(Run(run.path.rename(run.path.with_name("caf\udce9"))))  # a byte that is not UTF-8
    written = page_file.write(model, tmp_path / "page.html").read_text(encoding="utf-8")
    assert '"id": "caf\\udce9"' in written


def test_modules_are_put_after_what_they_import() -> None:
    imports = 'import { f as g } from "/page/web/b.js";\nimport * as c from "/page/web/c.js";\n'
    exports = "export default { z: 1 };\nexport class K {}\nexport async function* h() {}"
    modules = {
        "a.js": f"{imports}export const x = g(c.y);",
        "b.js": 'import d from "/page/web/c.js";\nexport function f(n) { return n + d.z; }',
        "c.js": f'export const y = "</script>";\n{exports}',
    }
    script = page_file.inlined(modules, "a.js")
    assert script.index('modules["c.js"]') < script.index('modules["b.js"]') < script.index('modules["a.js"]')
    assert "</script" not in script
    assert not re.search(r"^\s*(import|export)\b", script, re.MULTILINE)
    assert "return { y, default: exported, K, h };" in script


def test_the_views_are_those_of_the_server() -> None:
    web = {name: file.content.decode() for name, file in files.read().items()}
    for view in page_file.VIEWS:
        assert f"{view}.js" in web
    body = re.search(r"<body>\n(.*)\n</body>", web[files.INDEX], re.DOTALL)
    assert body is not None
    assert body[1] in page_file.page(charrnn.load("rekurentne"))


def test_the_command_writes_it(trained: TrainedRun, tmp_path: Path) -> None:
    trained()
    sizes = []
    for kind in ("float32", "bf16", "int8"):
        target = tmp_path / f"{kind}.html"
        done: Any = CliRunner().invoke(group, ["export", "run", "--to", str(target), "--weights", kind, "--json"])
        assert done.exit_code == 0, done.output
        sizes.append(json.loads(done.stdout.splitlines()[-1])["bytes"])
        assert sizes[-1] == target.stat().st_size
    assert sizes == sorted(sizes, reverse=True)
    for arguments in (["--to", str(tmp_path / "x.onnx")], ["--to", str(tmp_path / "folder")]):
        done = CliRunner().invoke(group, ["export", "run", *arguments, "--weights", "int8"])
        assert done.exit_code == 2
        assert "--weights is of a page" in done.output
    with pytest.raises(CharRNNError, match="exists already"):
        page_file.write(charrnn.load("run"), tmp_path / "int8.html")
    with pytest.raises(OptionError, match="choose from: float32, bf16, int8"):
        page_file.write(charrnn.load("run"), tmp_path / "other.html", "float16")  # type: ignore[arg-type]
