"""Programs that others wrote: the openai package, and lm-evaluation-harness. Skipped where they are not installed."""

import asyncio
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import CORPUS, config
from serving import Server, at_once, serving

from charrnn import api
from charrnn.api import TextModel
from charrnn.generate.sampling import Sampling
from charrnn.training import loop

pytest.importorskip("uvicorn")
pytest.importorskip("starlette")
# What these packages import is not ours to warn of.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> TextModel:
    place = tmp_path_factory.mktemp("clients")
    (place / "text.txt").write_text(CORPUS.read_text(encoding="utf-8")[:6000], encoding="utf-8")
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
def client(server: Server) -> Iterator[Any]:
    openai = pytest.importorskip("openai")
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=server.access.token, max_retries=0) as client:
        yield client


def texts(model: TextModel, prime: str, count: int, chars: int) -> list[str]:
    drawn = model.completions(prime, chars, Sampling(0.7, top_k=12, seed=3), count)
    return ["".join(c for c, _ in characters) for characters in drawn]


ASKED: dict[str, Any] = {"model": "small", "seed": 3, "temperature": 0.7, "max_tokens": 50, "extra_body": {"top_k": 12}}


def test_openai_completes(client: Any, model: TextModel) -> None:
    assert [each.id for each in client.models.list()] == ["small"]
    assert client.models.retrieve("small").owned_by == "charrnn"
    answer = client.completions.create(prompt="Re", n=3, **ASKED)
    assert [choice.text for choice in answer.choices] == texts(model, "Re", 3, 50)
    assert answer.usage.completion_tokens == 150
    assert {choice.finish_reason for choice in answer.choices} == {"length"}


def test_openai_streams(client: Any, model: TextModel) -> None:
    pieces = ["", "", ""]
    usage = None
    for event in client.completions.create(
        prompt="Re", n=3, stream=True, stream_options={"include_usage": True}, **ASKED
    ):
        usage = event.usage
        for choice in event.choices:
            pieces[choice.index] += choice.text
    assert pieces == texts(model, "Re", 3, 50)
    assert usage.total_tokens == 152


def test_openai_has_logprobs(client: Any, model: TextModel) -> None:
    answer = client.completions.create(prompt="Rekurentne", logprobs=2, echo=True, **ASKED)
    told = answer.choices[0].logprobs
    assert len(told.tokens) == len(told.token_logprobs) == len(told.top_logprobs) == len(told.text_offset) == 60
    assert "".join(told.tokens) == answer.choices[0].text
    for token, number, top in zip(told.tokens[1:], told.token_logprobs[1:], told.top_logprobs[1:], strict=True):
        assert top[token] == number
    nats = model.score("Rekurentne").per_char
    assert -sum(told.token_logprobs[1:10]) == pytest.approx(nats[1:].sum(), abs=1e-4)


def test_openai_says_what_is_wrong(client: Any, server: Server) -> None:
    import openai

    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model="small", prompt="Re", best_of=4)
    assert caught.value.param == "best_of"
    with pytest.raises(openai.NotFoundError):
        client.completions.create(model="davinci", prompt="Re")
    other = openai.OpenAI(base_url=f"{server.url}/v1", api_key="wrong", max_retries=0)
    with other, pytest.raises(openai.AuthenticationError):
        other.models.list()


def test_openai_asks_32_at_once(client: Any, server: Server, model: TextModel) -> None:
    import openai

    primes = [f"Re{'kurentne'[: n % 9]}" for n in range(32)]
    expected = [texts(model, prime, 1, 50)[0] for prime in primes]

    async def asked() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key=server.access.token) as many:
            answers = await asyncio.gather(*(many.completions.create(prompt=prime, **ASKED) for prime in primes))
            return [answer.choices[0].text for answer in answers]

    assert asyncio.run(asked()) == expected
    works = [lambda p=p: client.completions.create(prompt=p, **ASKED).choices[0].text for p in primes]
    assert at_once(works) == expected


def test_lm_eval_gives_the_bits_per_byte_of_eval(
    server: Server, model: TextModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rolling perplexity of documents, each of which is read from nothing, as `eval` reads it alone."""
    pytest.importorskip("lm_eval")
    from lm_eval.evaluator import evaluate
    from lm_eval.models.openai_completions import LocalCompletionsAPI

    monkeypatch.setenv("OPENAI_API_KEY", server.access.token)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    whole = CORPUS.read_text(encoding="utf-8")
    documents = [whole[6000:8000], whole[9000:9700], "Rekurentne mreže; 日本.\nKraj."]
    harness = LocalCompletionsAPI(
        base_url=f"{server.url}/v1/completions",
        model="small",
        tokenizer_backend="remote",
        auth_token=server.access.token,
        max_length=4096,
        batch_size=2,
    )
    # Not simple_evaluate, which looks through the thousands of tasks that the harness brings, and over the machine.
    results = evaluate(harness, {"rolling": rolling(documents)}, bootstrap_iters=0, verbosity="ERROR")
    bits = results["results"]["rolling"]["bits_per_byte,none"]
    nats = 0.0
    for document in documents:
        (tmp_path / "document.txt").write_text(document, encoding="utf-8")
        nats += api.score_run(model, str(tmp_path / "document.txt"), None, "stream")[1].per_char.sum()
    expected = nats / math.log(2) / sum(len(document.encode("utf-8")) for document in documents)
    assert bits == pytest.approx(expected, abs=1e-6)


def rolling(texts: list[str]) -> Any:
    """A task of the harness: the rolling perplexity of texts of our own."""
    import datasets
    from lm_eval.api.task import ConfigurableTask

    class Task(ConfigurableTask):  # type: ignore[misc]
        VERSION = 1

        def download(self, *_: Any, **__: Any) -> None:
            self.dataset = datasets.DatasetDict({"test": datasets.Dataset.from_dict({"text": texts})})

    return Task(
        config={
            "task": "rolling",
            "output_type": "loglikelihood_rolling",
            "test_split": "test",
            "num_fewshot": 0,
            "doc_to_text": "",
            "doc_to_target": "{{text}}",
            "metric_list": [{"metric": "bits_per_byte"}],
        }
    )
