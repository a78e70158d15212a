"""The routes of the local page: what the library gives, within bounds; no path from a request; who may train."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import CORPUS, config
from serving import Client, Server, serving, until

from charrnn import api
from charrnn.api import TextModel
from charrnn.generate.candidates import ranked
from charrnn.generate.sampling import Sampling
from charrnn.serve.models import Served
from charrnn.sharing import page_file
from charrnn.training import loop
from charrnn.training.run import Run

pytest.importorskip("uvicorn")
pytest.importorskip("starlette")
TrainedRun = Callable[..., Run]
TEXT = 'Rekurentne mreže (pamte) "niz".\n日本 \u202e<script>alert(1)</script>\u2028'
MOST_BYTES = 200_000  # of the whole page
WEB = Path(__file__).parent.parent / "charrnn" / "serve" / "page" / "web"
WORDS = ("en.js", "sr.js")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> TextModel:
    place = tmp_path_factory.mktemp("page")
    (place / "text.txt").write_text(CORPUS.read_text(encoding="utf-8")[:6000], encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CHARRNN_HOME", str(place / "home"))
        asked = config(str(place / "text.txt"), steps=30)
        run = loop.open_run(asked, out=place / "small")
        for _ in loop.new_run(asked, run):
            pass
    return api.load(run)


@pytest.fixture(scope="module")
def server(model: TextModel) -> Iterator[Server]:
    with serving(model) as server:
        yield server


@pytest.fixture
def client(server: Server) -> Client:
    return Client(server)


def ask(client: Client, route: str, **values: Any) -> Any:
    """What a route of the page answers to a good request."""
    answered = client(f"/page/{route}", values)
    assert answered.status == 200, answered
    return answered.json


def refusal(client: Client, route: str, status: int = 400, **values: Any) -> str:
    """What a route says of a request that it refuses."""
    answered = client(f"/page/{route}", values)
    assert answered.status == status, answered
    return str(answered.json["error"]["message"])


# The files


def test_the_page_runs_its_own_scripts_alone_and_makes_no_markup_of_text(client: Client) -> None:
    for path in ("/", "/page/", "/page/web/app.js", "/page/web/style.css"):
        answered = client(path)
        assert answered.status == 200
        policy = answered.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; ")
        assert "require-trusted-types-for 'script'" in policy
        assert "unsafe" not in policy
        assert answered.headers["x-content-type-options"] == "nosniff"
        assert client(path, headers={}).status == 401
    assert client("/").body == (WEB / "index.html").read_bytes()
    assert client("/page/web/app.js").headers["content-type"] == "text/javascript; charset=utf-8"


def test_only_files_of_the_page_are_sent(client: Client) -> None:
    for name in ("../routes.py", "%2e%2e%2froutes.py", "__init__.py", "/etc/passwd", ""):
        assert client(f"/page/web/{name}").status == 404


def test_the_page_is_small_and_holds_no_markup_in_scripts() -> None:
    found = list(WEB.iterdir())
    assert len(found) > 10
    assert sum(path.stat().st_size for path in found) <= MOST_BYTES
    for path in found:
        text = path.read_text(encoding="utf-8")
        assert not re.findall(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|srcdoc", text
        )
        assert not re.findall(r"https?://(?!www\.w3\.org/2000/svg)", text), path
        assert not re.search(r'\sstyle="|\son\w+="', text), path


def words_of(name: str) -> dict[str, str]:
    """The words of a language, by key."""
    text = (WEB / name).read_text(encoding="utf-8")
    found = re.findall(r'^  "([^"]+)": "((?:[^"\\]|\\.)*)",$', text, re.MULTILINE)
    assert len(found) == len(dict(found)) > 100
    return dict(found)


def test_every_word_stands_in_both_languages_with_the_same_places() -> None:
    english, serbian = map(words_of, WORDS)
    assert list(english) == list(serbian)
    for key in english:
        assert set(re.findall(r"\{\w+\}", english[key])) == set(re.findall(r"\{\w+\}", serbian[key])), key


def test_every_word_is_used_and_none_is_missing() -> None:
    code = "".join(path.read_text(encoding="utf-8") for path in WEB.glob("*.js") if path.name not in WORDS)
    code += page_file.LOCAL.read_text(encoding="utf-8")
    used = set(re.findall(r'\bt\("([^"]+)"', code))
    begun = set(re.findall(r"\bt\(`([^$`]+)\$\{", code))
    known = set(words_of("en.js"))
    assert used <= known
    for key in known - used - {"language"}:
        assert any(key.startswith(beginning) for beginning in begun), key


# What is computed


def test_the_page_is_told_of_models_cells_and_corpora(client: Client, model: TextModel) -> None:
    about = client("/page/about").json
    assert about["models"] == [
        {"id": "small", "cell": "nn.GRU", "hidden": 24, "layers": 1, "parameters": model.architecture.count()}
    ]
    assert about["may_train"] is True
    assert "rekurentne" in about["corpora"]
    assert "text8" not in about["corpora"]  # it is not here
    assert about["default_cell"] in about["cells"]


def test_next_characters_are_those_of_the_library(client: Client, model: TextModel) -> None:
    told = ask(client, "next", model="small", text=TEXT)["next"]
    assert [(each["character"], each["probability"]) for each in told] == model.next(TEXT, 5)


def test_endings_are_those_of_complete(client: Client, model: TextModel) -> None:
    told = ask(
        client, "completions", model="small", text="Re", count=3, chars=60, until="word", temperature=0.9, seed=4
    )
    expected = ranked(model.completions("Re", 60, Sampling(0.9, seed=4), 3), "word")
    assert [(each["text"], each["nats_per_char"]) for each in told["completions"]] == [
        (each.text, each.nats_per_char) for each in expected
    ]


def test_copies_are_told_with_their_places(trained: TrainedRun, corpus: str) -> None:
    model = api.load(trained("copied"))
    learned = Path(corpus).read_text(encoding="utf-8")
    text = f"qqq {learned[100:140]} wxwx {learned[1000:1030]}"
    with serving(model) as server:
        found = ask(Client(server), "copies", model="copied", text=text)["copies"]
    assert len(found) == 2
    for copy in found:
        passage = text[copy["at"] : copy["at"] + copy["length"]]
        assert learned[copy["offset"] :].startswith(passage)
    assert found[0]["at"] <= 4 < 44 <= found[0]["at"] + found[0]["length"]


def test_what_a_model_learned_may_be_gone(client: Client) -> None:
    answered = ask(client, "copies", model="small", text="Rekurentne mreže pamte")
    assert answered["copies"] == []
    assert "private copy" in answered["copies_unknown"]


@pytest.mark.parametrize("text", [TEXT, "R", "日本"])
def test_surprise_is_the_score(client: Client, model: TextModel, text: str) -> None:
    told = ask(client, "surprise", model="small", text=text)
    score = model.score(text)
    assert told["text"] == model.clean(text)
    assert len(told["bits"]) == len(told["expected"]) == len(told["text"])
    np.testing.assert_allclose(told["bits"], score.per_char / np.log(2), atol=2e-4)  # told to four digits, of float32
    assert told["bits_per_char"] == pytest.approx(score.bits_per_char, abs=1e-4)
    for likely in told["expected"]:
        assert len(likely) == 5
        assert sorted((p for _, p in likely), reverse=True) == [p for _, p in likely]


def test_the_expected_characters_are_the_likeliest(client: Client, model: TextModel) -> None:
    told = ask(client, "surprise", model="small", text="Reke")
    for n in range(4):
        expected = model.next("Reke"[:n], 5)
        assert [character for character, _ in told["expected"][n]] == [character for character, _ in expected]


def test_units_are_those_of_inspect(client: Client, model: TextModel) -> None:
    units = model.units(TEXT)
    told = ask(client, "units", model="small", text=TEXT, count=3)
    assert told["text"] == units.text
    assert told["layers"] == [{"layer": 1, "states": ["h", "r", "z"]}]
    assert told["hidden"] == 24
    for name, best in told["properties"].items():
        assert [(each["unit"], each["correlation"]) for each in best] == [(u.name, r) for u, r in units.best(name, 3)]
    one = ask(client, "unit", model="small", text=TEXT, unit="1.h.7")
    np.testing.assert_allclose(one["activations"], units.of("1.h.7"), atol=1e-4)
    assert "there is no unit" in refusal(client, "unit", model="small", text=TEXT, unit="9.h.7")


def test_gates_are_those_of_inspect(client: Client, model: TextModel) -> None:
    gates = model.units(TEXT).gates
    told = ask(client, "units", model="small", text=TEXT, count=3)
    names = list(dict.fromkeys(unit.name.rpartition(".")[0] for unit in gates.units))
    assert [each["gate"] for each in told["gates"]] == names
    assert names
    assert set(told["layers"][0]["states"]) >= {name.partition(".")[2] for name in names}
    of_first = [i for i, unit in enumerate(gates.units) if unit.name.startswith(f"{names[0]}.")]
    assert told["gates"][0]["mean"] == pytest.approx(float(gates.mean[of_first].mean()), abs=1e-4)
    for name, best in told["gates_follow"].items():
        assert [(each["unit"], each["correlation"]) for each in best] == [(u.name, r) for u, r in gates.best(name, 3)]
    one = ask(client, "unit", model="small", text=TEXT, unit=f"{names[0]}.2")
    np.testing.assert_allclose(one["activations"], gates.activations[:, of_first[1]], atol=1e-4)
    assert one["correlations"].keys() == gates.correlations.keys()


def test_the_units_that_stand_out_are_furthest_from_their_mean(client: Client, model: TextModel) -> None:
    values = model.units(TEXT).activations.astype(np.float64)
    far = (values[5] - values.mean(axis=0)) / values.std(axis=0)
    told = ask(client, "strongest", model="small", text=TEXT, place=5)["strongest"]
    assert told[0]["unit"] == f"1.h.{np.argmax(abs(far)) + 1}"
    assert [each["deviations"] for each in told] == sorted((e["deviations"] for e in told), key=abs, reverse=True)
    assert "there is no character" in refusal(client, "strongest", model="small", text=TEXT, place=3000)


# What a body may hold


@pytest.mark.parametrize(
    ("route", "values", "said"),
    [
        ("next", {"model": "small"}, "text is no string"),
        ("next", {"model": "small", "text": 7}, "text is no string"),
        ("next", {"model": "../small", "text": ""}, "model is none of: small"),
        ("next", {"model": "small", "text": "x" * 20_001}, "up to 20,000 are read"),
        ("next", {"model": "small", "text": "\ud800"}, "half a surrogate pair"),
        ("next", {"model": "small", "text": "", "path": "/etc/passwd"}, "'path' is no parameter"),
        ("surprise", {"model": "small", "text": ""}, "the text is empty"),
        ("surprise", {"model": "small", "text": "x" * 20_001}, "up to 20,000 are read"),
        ("units", {"model": "small", "text": "x" * 4001}, "up to 4,000 are read"),
        ("units", {"model": "small", "text": "x", "count": True}, "count: expected a whole number"),
        ("completions", {"model": "small", "text": "", "count": 99}, "count: expected a whole number"),
        ("completions", {"model": "small", "text": "", "until": "ever"}, "until is none of: word, line, sentence"),
        ("completions", {"model": "small", "text": "", "top_p": 0}, "top-p"),
        ("completions", {"model": "small", "text": "", "temperature": "hot"}, "temperature: expected a number"),
        ("train", {"text": "x", "minutes": 0}, "minutes: expected a number"),
        ("train", {"text": " \n", "minutes": 1}, "the text is empty"),
        ("train", {"corpus": "/etc/passwd", "minutes": 1}, "corpus is none of"),
        ("train", {"corpus": "-", "minutes": 1}, "corpus is none of"),
        ("train", {"text": "x", "minutes": 1, "cell": "../gru"}, "cell is none of"),
        ("train", {"text": "x", "minutes": 1, "name": "../out"}, "name: use letters"),
        ("train", {"text": "x", "minutes": 1, "name": "--out"}, "name: use letters"),
        ("train", {"text": "x", "minutes": 1, "name": "latest"}, "name: use letters"),
        ("train", {"text": "x", "minutes": 1, "out": "/tmp/x"}, "'out' is no parameter"),
        ("stop", {"run": "nothing"}, "is not trained by this page"),
    ],
)
def test_what_no_body_may_hold_is_refused_by_name(
    client: Client, route: str, values: dict[str, Any], said: str
) -> None:
    assert said in refusal(client, route, **values)


@pytest.mark.parametrize("route", ["run", "open", "resume"])
@pytest.mark.parametrize("name", ["nothing", "../small", "/etc", ""])
def test_a_run_is_one_of_the_list(client: Client, route: str, name: str) -> None:
    assert refusal(client, route, 404, run=name) == "there is no run of this name"
    assert "no finished comparison" in refusal(client, "comparison", 404, name=name)


# Runs and training


def test_runs_are_told_with_their_figures(client: Client, trained: TrainedRun) -> None:
    run = trained("mine")
    told = {each["run"]: each for each in client("/page/runs").json["runs"]}
    assert told["mine"]["state"] == "complete"
    assert told["rekurentne"]["bundled"] is True
    one = ask(client, "run", run="mine")
    rows = run.rows("metrics.jsonl")
    assert [row["step"] for row in one["rows"]] == [row["step"] for row in rows]
    assert one["rows"][-1]["val_bits"] == pytest.approx(rows[-1]["val_nats"] / np.log(2))
    assert one["sample"]["step"] == 12
    assert CORPUS.read_text(encoding="utf-8").startswith(one["sample"]["prime"])
    assert len(one["sample"]["text"]) == 160


def test_a_damaged_run_says_so_and_hides_no_other(client: Client, trained: TrainedRun) -> None:
    trained("good")
    bad = trained("bad")
    (bad.path / "run.json").write_text("{")
    told = {each["run"]: each for each in client("/page/runs").json["runs"]}
    assert told["bad"]["state"] == "damaged"
    assert "run.json" in told["bad"]["problem"]
    assert told["good"]["state"] == "complete"


def test_a_run_joins_the_models(model: TextModel, trained: TrainedRun) -> None:
    run = trained("other", cell="gru")
    with serving(model) as server:
        client = Client(server)
        assert ask(client, "open", run="other")["cell"] == "gru"
        assert [each["id"] for each in client("/v1/models").json["data"]] == ["small", "other"]
        answered = client("/v1/completions", {"model": "other", "prompt": "Re", "seed": 3, "max_tokens": 40})
        text = answered.json["choices"][0]["text"]
        assert api.load(run).complete("Re", 40, temperature=1, seed=3).startswith(text)
        assert ask(client, "open", run="other")["id"] == "other"  # again: nothing happens


def test_other_machines_may_not_train_unless_that_is_allowed(model: TextModel, trained: TrainedRun) -> None:
    trained("other")
    with serving(model, host="0.0.0.0") as server:
        client = Client(server)
        assert client("/page/about").json["may_train"] is False
        for route, values in [("train", {"text": "x", "minutes": 1}), ("open", {"run": "other"})]:
            assert "--allow-train" in refusal(client, route, 403, **values)
        for route in ("stop", "resume", "run"):
            assert "--allow-train" in refusal(client, route, 403, run="other")
        assert client("/page/runs").status == 403
    with serving(model, host="0.0.0.0", allow_train=True) as server:
        assert Client(server)("/page/about").json["may_train"] is True
        assert ask(Client(server), "open", run="other")["id"] == "other"


@pytest.mark.slow
def test_a_training_is_stopped_resumed_and_learned_from_one_at_a_time(model: TextModel, home: Path) -> None:
    text = CORPUS.read_text(encoding="utf-8")[:20_000] + TEXT
    with serving(model) as server:
        client = Client(server)
        begun = ask(client, "train", text=text, minutes=3, cell="gru", name="my run")
        assert begun["run"] == "my run"
        assert begun["running"] is True
        assert "is being trained" in refusal(client, "train", corpus="rekurentne", minutes=1)
        until(lambda: any(e["run"] == "my run" and e["state"] == "training" for e in client("/page/runs").json["runs"]))
        until(lambda: len(ask(client, "run", run="my run")["rows"]) > 1)
        ask(client, "stop", run="my run")
        until(lambda: not client("/page/runs").json["training"]["running"])
        stopped = ask(client, "run", run="my run")
        assert stopped["state"] == "stopped"
        assert stopped["sample"]["step"] == stopped["step"] > 0
        ask(client, "resume", run="my run")
        until(lambda: ask(client, "run", run="my run")["rows"][-1]["step"] > stopped["step"])
    assert not Run(home / "my run").in_use()  # the server's end lets it save itself
    assert Run(home / "my run").about()["step"] > stopped["step"]
    assert Run(home / "my run").config().corpus == ("-",)


@pytest.mark.slow
def test_what_keeps_a_training_from_beginning_is_said_in_the_words_of_the_command(model: TextModel) -> None:
    with serving(model) as server:
        client = Client(server)
        ask(client, "train", text="abc", minutes=1)
        until(lambda: not client("/page/runs").json["training"]["running"])
        training = client("/page/runs").json["training"]
    assert training["code"] == 1
    assert any(line.startswith("error: ") for line in training["said"])


def test_a_model_that_was_not_loaded_from_a_run_is_told_of(model: TextModel) -> None:
    served = Served("alone", model.decoder(), model.tokenizer, model.clean)
    with Server([served]) as server:
        client = Client(server)
        assert "not loaded from a run" in refusal(client, "next", model="alone", text="")
        assert len(ask(client, "surprise", model="alone", text="Re")["bits"]) == 2
