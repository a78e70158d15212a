"""The routes: models, completions, the tokenizer."""

import asyncio
import contextlib
import functools
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, cast

from charrnn.generate.pieces import Pieces
from charrnn.generate.rows import in_groups
from charrnn.serve import answers, logprobs
from charrnn.serve.batching import Batch, Choice, Pairs, Piece
from charrnn.serve.errors import RequestError, bad
from charrnn.serve.exchange import json_response, read_object, refusing, unless_gone
from charrnn.serve.limits import Limits
from charrnn.serve.logprobs import Token
from charrnn.serve.models import START, Prompt, Served
from charrnn.serve.requests import CompletionRequest, ids_of, model_of, shown, text_of
from charrnn.serve.safety import LOG, Access, Guard

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route
    from starlette.types import Receive, Scope, Send


class Service:
    """Models that answer requests. Its batches deliver to the event loop in which it is started."""

    def __init__(self, models: Mapping[str, Served], limits: Limits, log_prompts: bool = False) -> None:
        """log_prompts: whether prompts stand in the log. Raises CharRNNError for a model that nothing can decode."""
        self.models, self.limits, self._log_prompts = dict(models), limits, log_prompts
        # Compiled now, where that is needed: a request does not wait for it.
        self._rows = {name: in_groups(each.decoder, each.tokenizer, limits.rows) for name, each in models.items()}
        self._batches: dict[str, Batch] = {}
        self._deliver: Delivery | None = None
        self._scorer = ThreadPoolExecutor(1, "scorer")
        self._scoring = asyncio.Lock()

    def start(self) -> None:
        """Begin to decode, for the event loop that runs."""
        self._deliver = Delivery()
        for name, served in self.models.items():
            self._batches[name] = Batch(served, self._rows[name], self.limits, self._deliver)

    async def add(self, served: Served) -> None:
        """Serve one more model, once its rows are compiled. Raises CharRNNError where nothing can decode it."""
        assert self._deliver is not None
        rows = await asyncio.to_thread(in_groups, served.decoder, served.tokenizer, self.limits.rows)
        if served.name not in self.models:
            self._rows[served.name] = rows
            self._batches[served.name] = Batch(served, rows, self.limits, self._deliver)
            self.models[served.name] = served

    def end(self) -> None:
        """End all completions that still run."""
        for batch in self._batches.values():
            batch.end(RequestError(503, "the server ends", code="ending", headers={"Retry-After": "5"}))

    @property
    def running(self) -> int:
        """How many completions have a row, of all models."""
        return sum(batch.running for batch in self._batches.values())

    # Routes

    async def list_models(self, request: "Request") -> "Response":
        return json_response(answers.models(self.models))

    async def one_model(self, request: "Request") -> "Response":
        return json_response(answers.model(self._named(request.path_params["id"])))

    async def tokenizer_info(self, request: "Request") -> "Response":
        return json_response(answers.tokenizer_info(self._named(request.query_params.get("model", ""), True)))

    async def tokenize(self, request: "Request") -> "Response":
        values = await read_object(request, self.limits)
        served, text = self._named(model_of(values), True), text_of(values, "prompt")
        with refusing("prompt"):
            ids = [served.start] if text == START else served.prompt(text).ids.tolist()
        return json_response({"tokens": ids, "count": len(ids), "max_model_len": self.limits.ids})

    async def detokenize(self, request: "Request") -> "Response":
        values = await read_object(request, self.limits)
        served = self._named(model_of(values), True)
        with refusing("tokens"):
            return json_response({"prompt": served.prompt(ids_of(values, "tokens")).text})

    async def completions(self, request: "Request") -> "Response":
        values = await read_object(request, self.limits)
        asked = CompletionRequest.of(values, self.limits)
        served = self._named(asked.model)
        with refusing("prompt"):
            prompts = [served.prompt(each) for each in asked.prompts]
        if self._log_prompts:
            LOG.info("prompts: %s", shown(asked.prompts))
        read = sum(len(prompt.ids) for prompt in prompts)
        if read * asked.n > self.limits.ids:
            raise bad(f"the prompts have {read:,} ids, times n; up to {self.limits.ids:,} are read", "prompt")
        drawn = len(prompts) * asked.n * asked.max_tokens
        if asked.logprobs is not None and drawn > self.limits.scored:
            raise bad(f"logprobs are told of up to {self.limits.scored:,} ids: ask for fewer", "max_tokens")
        if asked.echo and asked.logprobs is not None and read > self.limits.scored:
            raise bad(f"the prompts have {read:,} ids; logprobs are told of up to {self.limits.scored:,}", "prompt")
        work = _Completions(self, served, asked, prompts)
        if asked.stream:
            from starlette.responses import StreamingResponse

            first = await unless_gone(request, work.begin())  # a refusal is an answer of its own, not a stream
            return work.leaving(StreamingResponse(work.events(first), media_type="text/event-stream"))
        return json_response(await unless_gone(request, work.whole()))

    # What routes share

    def batch(self, served: Served) -> Batch:
        """Return the rows of a model."""
        return self._batches[served.name]

    async def scored(self, served: Served, prompt: Prompt, k: int) -> list[Token]:
        """Return the tokens of a prompt with their logprobs; prompts take turns, some ids at a time."""
        pieces, tokens = logprobs.of_prompt(served, prompt, k), list[Token]()
        loop = asyncio.get_running_loop()
        while True:
            async with self._scoring:
                piece = await loop.run_in_executor(self._scorer, next, pieces, None)
            if piece is None:
                return tokens
            tokens += piece

    def _named(self, name: str, may_miss: bool = False) -> Served:
        """Return a model. may_miss: whether no name is the first one."""
        if not name and may_miss:
            return next(iter(self.models.values()))
        if name not in self.models:
            there = ", ".join(self.models)
            raise RequestError(404, f"there is no model of this name; there are: {there}", "model", "model_not_found")
        return self.models[name]


class _Completions:
    """The completions of one request, from the rows to the answer."""

    def __init__(self, service: Service, served: Served, asked: CompletionRequest, prompts: Sequence[Prompt]) -> None:
        self._service, self._served, self._asked, self._prompts = service, served, asked, prompts
        self._answer = answers.Answer(served, asked.sampling.seed)
        self._count = len(prompts) * asked.n
        self._pieces: asyncio.Queue[tuple[int, Piece]] = asyncio.Queue()
        self._choices: list[Choice] = []
        self._ids = [0] * self._count
        self._echoed: list[list[Token]] = []
        self._logprobs = [answers.Logprobs(served) for _ in range(self._count)]

    async def begin(self) -> list[tuple[int, Piece]]:
        """Score what is to be echoed, and ask for rows. Returns the pieces that are there at once."""
        asked, served = self._asked, self._served
        if asked.echo and asked.logprobs is not None:
            self._echoed = [await self._service.scored(served, prompt, asked.logprobs) for prompt in self._prompts]
        if asked.max_tokens == 0:
            return [(index, Piece("", ended="length")) for index in range(self._count)]
        for index in range(self._count):
            prompt = self._prompts[index // asked.n]
            most, document = asked.max_tokens, served.document
            current = prompt.text if document == "file" else served.decode(tuple(prompt.given[1:].tolist()))
            self._choices.append(
                Choice(
                    served.start_state,
                    prompt.given,
                    asked.sampling,
                    index % asked.n,
                    Pieces(served.tokenizer, most, asked.stop, current, document),
                    functools.partial(_put, self._pieces, index),
                    asked.logprobs,
                    asked.stream,
                )
            )
        self._service.batch(served).submit(self._choices)
        return []

    async def whole(self) -> dict[str, Any]:
        """Return the answer once all have ended."""
        choices: dict[int, dict[str, Any]] = {}
        try:
            async for index, piece in self._all(await self.begin()):
                if piece.error is not None:
                    raise piece.error
                choices[index] = self._choice(index, piece, True)
        finally:
            self._leave()
        return self._answer.whole([choices[index] for index in sorted(choices)], self._usage())

    async def events(self, first: Sequence[tuple[int, Piece]]) -> AsyncIterator[bytes]:
        """Yield the answer piece by piece, as server-sent events."""
        with_usage, begun = self._asked.include_usage, set[int]()
        async for index, piece in self._all(first):
            if piece.error is not None:
                yield answers.event(piece.error.body())
                break
            choice = self._choice(index, piece, index not in begun)
            begun.add(index)
            yield answers.event(self._answer.piece([choice], None, with_usage))
        else:
            if with_usage:
                yield answers.event(self._answer.piece([], self._usage(), True))
        yield answers.DONE

    def leaving(self, response: "Response") -> "Response":
        """Return a response that gives up the rows in the end, whatever the end is, even if it never begins."""
        send = response.__call__

        async def call(*arguments: Any) -> None:
            try:
                await send(*arguments)
            finally:
                self._leave()

        return cast("Response", call)  # whoever has a response does nothing but call it

    async def _all(self, first: Sequence[tuple[int, Piece]]) -> AsyncIterator[tuple[int, Piece]]:
        """Yield the pieces of all choices until each has had its last."""
        left = self._count
        for index, piece in first:
            left -= piece.is_last
            yield index, piece
        while left:
            index, piece = await self._pieces.get()
            self._ids[index] = piece.ids
            left -= piece.is_last
            yield index, piece

    def _choice(self, index: int, piece: Piece, is_first: bool) -> dict[str, Any]:
        echo = self._asked.echo and is_first
        prompt = index // self._asked.n
        text = (self._prompts[prompt].text if echo else "") + piece.text
        told = None
        if self._asked.logprobs is not None:
            echoed = self._echoed[prompt] if echo else []
            told = self._logprobs[index].of([*echoed, *piece.tokens])
        return answers.choice(index, text, piece.ended, told)

    def _usage(self) -> dict[str, int]:
        read = sum(len(prompt.ids) + prompt.begun for prompt in self._prompts)
        return answers.usage(read, sum(self._ids))

    def _leave(self) -> None:
        if self._choices:
            self._service.batch(self._served).leave(self._choices)


def application(service: Service, access: Access, page: Sequence["Route"] = ()) -> Callable[..., Any]:
    """Return the application that a server runs: the routes, behind what lets requests through.

    page: the routes of the local page, the first of which is where a browser that has the token begins.
    """
    from starlette.responses import PlainTextResponse, RedirectResponse
    from starlette.routing import Route, Router

    async def home(request: "Request") -> "Response":
        if "token" not in request.query_params:
            if page:
                return cast("Response", await page[0].endpoint(request))
            return PlainTextResponse("charrnn answers at /v1, in the way of OpenAI's completions API.\n")
        answer = RedirectResponse("/", 303)  # without the token, which is in no history then
        answer.set_cookie(access.cookie, access.token, path="/", secure=access.secure, httponly=True, samesite="lax")
        return answer

    @contextlib.asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        service.start()
        yield
        await asyncio.to_thread(service.end)

    routes = [
        Route("/", home),
        Route("/v1/models", service.list_models),
        Route("/v1/models/{id:path}", service.one_model),
        Route("/v1/completions", _Answering(service.completions), methods=["POST"]),
        Route("/tokenizer_info", service.tokenizer_info),
        Route("/tokenize", service.tokenize, methods=["POST"]),
        Route("/detokenize", service.detokenize, methods=["POST"]),
        *page,
    ]
    return Guard(Router(routes, lifespan=lifespan), access)


class _Answering:
    """Answers as a function of a request does. Starlette's own way calls more: what is raised here, a Guard handles."""

    def __init__(self, answer: "Callable[[Request], Awaitable[Response]]") -> None:
        self._answer = answer

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Answer a request, as ASGI asks it."""
        from starlette.requests import Request

        response = await self._answer(Request(scope, receive, send))
        await response(scope, receive, send)


class Delivery:
    """Hands what threads tell to whom it is for, in the event loop that runs now, which is woken once for all."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._told: deque[tuple[Choice, Piece]] = deque()
        self._is_called = False

    def __call__(self, pairs: Pairs) -> None:
        """Take what there is to tell, in any thread."""
        self._told.extend(pairs)
        if not self._is_called:
            self._is_called = True
            self._loop.call_soon_threadsafe(self._hand_out)

    def _hand_out(self) -> None:
        self._is_called = False  # before it is looked at: who tells more from now on calls again
        while self._told:
            choice, piece = self._told.popleft()
            choice.to(piece)


def _put(pieces: "asyncio.Queue[tuple[int, Piece]]", index: int, piece: Piece) -> None:
    pieces.put_nowait((index, piece))
