"""The routes of the page. No body names a path: runs, corpora and comparisons are chosen from lists by their names."""

import asyncio
import functools
import re
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from charrnn import __version__, api, cells
from charrnn.errors import CharRNNError
from charrnn.generate.request import DEFAULT_SEED, DEFAULT_TEMPERATURE
from charrnn.generate.sampling import Sampling
from charrnn.generate.stopping import UNITS
from charrnn.home import home
from charrnn.model.settings import ModelSettings
from charrnn.serve.app import Service
from charrnn.serve.errors import RequestError, bad
from charrnn.serve.exchange import json_response, read_object, unless_gone
from charrnn.serve.models import Served
from charrnn.serve.page import files, run_views, work
from charrnn.serve.page.bodies import Body
from charrnn.serve.page.training import Training
from charrnn.text import catalogue, corpora, python_corpora
from charrnn.text.corpora import STDIN

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

LIKELIEST = 5  # characters that are shown as expected
# Bounds of one request, in characters: what follows typing, what is scored, whose units are read, what is learned.
TYPED_CHARS, SCORED_CHARS, UNIT_CHARS, CORPUS_CHARS = 20_000, 20_000, 4000, 1 << 25
CORPUS_BYTES = 4 * CORPUS_CHARS  # of a body with a text to be learned
COMPLETED_CHARS, COMPLETIONS, RANKED = 400, 8, 5
MINUTES_LEAST, MINUTES_MOST = 0.05, 24 * 60
MODELS = 16  # that are served at once
OWN_TEXT_CHARS = 600
NAME_CHARS = 80
# What a run may be called here: no folder above, nothing hidden, nothing that looks like an option.
NAME = re.compile(r"[^\W_][\w .+-]{0,79}")

Handler = Callable[["Request"], Awaitable["Response"]]


class Page:
    """The page of a server. may_train: whether it may train, and show and serve runs that were not named."""

    def __init__(self, service: Service, may_train: bool) -> None:
        self._service, self._may_train = service, may_train
        self._files = files.read()
        self._threads = work.Threads()
        self._units = work.UnitReader()
        self._samples = run_views.Samples()
        self._training = Training()
        self._opening = asyncio.Lock()

    def end(self) -> None:
        """Let a training that the page began save itself."""
        self._training.end()

    def routes(self) -> list["Route"]:
        """Return the routes: first the page itself, then its files, then what it asks for."""
        from starlette.routing import Route

        asked: dict[str, Callable[[Body], Awaitable[Mapping[str, Any]]]] = {
            "next": self._next,
            "completions": self._completions,
            "copies": self._copies,
            "surprise": self._surprise,
            "units": self._ranked_units,
            "unit": self._unit,
            "strongest": self._strongest,
            "text": self._own_text,
            "run": self._run,
            "open": self._open,
            "train": self._train,
            "stop": self._stop,
            "resume": self._resume,
            "comparison": self._comparison,
        }
        told = {"about": self._about, "runs": self._runs, "comparisons": self._comparisons}
        return [
            Route("/page/", self.index),
            Route("/page/web/{name}", self._file),
            *(Route(f"/page/{name}", _telling(tell)) for name, tell in told.items()),
            *(Route(f"/page/{name}", self._asking(name, ask), methods=["POST"]) for name, ask in asked.items()),
        ]

    async def index(self, request: "Request") -> "Response":
        """Answer with the page."""
        return self._sent(files.INDEX)

    async def _file(self, request: "Request") -> "Response":
        name = request.path_params["name"]
        if name not in self._files:
            raise RequestError(404, "the page has no such file")
        return self._sent(name)

    def _sent(self, name: str) -> "Response":
        from starlette.responses import Response

        file = self._files[name]
        headers = {"Content-Security-Policy": files.POLICY, "Content-Type": file.media_type}
        return Response(file.content, headers=headers)

    def _asking(self, name: str, ask: Callable[[Body], Awaitable[Mapping[str, Any]]]) -> Handler:
        """Return the handler of a route that reads a body."""
        most = CORPUS_BYTES if name == "train" else None

        async def handler(request: "Request") -> "Response":
            body = Body(await read_object(request, self._service.limits, most))
            try:
                return json_response(await unless_gone(request, _awaited(ask(body))))
            except CharRNNError as error:
                raise bad(str(error)) from None

        return handler

    # Models

    async def _about(self) -> Mapping[str, Any]:
        models = self._service.models.values()
        return {
            "version": __version__,
            "models": [_model(served) for served in models],
            "may_train": self._may_train,
            "cells": cells.names(),
            "default_cell": ModelSettings.cell,
            "corpora": _corpora(),
            "defaults": {"temperature": DEFAULT_TEMPERATURE, "seed": DEFAULT_SEED},
            "most_chars": {"complete": TYPED_CHARS, "surprise": SCORED_CHARS, "inside": UNIT_CHARS},
        }

    async def _open(self, body: Body) -> Mapping[str, Any]:
        """Serve a run, as if it had been named when the server was started."""
        self._refuse_where_not_allowed()
        name = body.text("run", 1000)
        body.end()
        async with self._opening:
            if name not in self._service.models:
                if len(self._service.models) >= MODELS:
                    raise bad(f"{MODELS} models are served already: start the server again with those you want", "run")
                run = await asyncio.to_thread(run_views.run_named, name)
                served = await asyncio.to_thread(lambda: Served.of(api.load(run)))
                await self._service.add(served)
        return _model(self._service.models[name])

    def _served(self, body: Body) -> Served:
        return self._service.models[body.one_of("model", self._service.models)]

    # Complete

    async def _next(self, body: Body) -> Mapping[str, Any]:
        model, text = work.known(self._served(body)), body.text("text", TYPED_CHARS)
        body.end()
        return await self._threads.short(lambda: work.following(model, text, LIKELIEST))

    async def _completions(self, body: Body) -> Mapping[str, Any]:
        model, text = work.known(self._served(body)), body.text("text", TYPED_CHARS)
        until = next(unit for unit in UNITS if unit == body.one_of("until", UNITS, "sentence"))
        count = body.whole("count", 1, COMPLETIONS, RANKED)
        chars = body.whole("chars", 1, COMPLETED_CHARS, COMPLETED_CHARS)
        sampling = _sampling(body)
        body.end()
        return await self._threads.long(lambda: work.completions(model, text, chars, sampling, count, until))

    async def _copies(self, body: Body) -> Mapping[str, Any]:
        model, text = work.known(self._served(body)), body.text("text", TYPED_CHARS)
        body.end()
        return await self._threads.long(lambda: work.copies(model, text))

    # Surprise and Inside

    async def _own_text(self, body: Body) -> Mapping[str, Any]:
        model = work.known(self._served(body))
        body.end()
        return await self._threads.long(lambda: work.own_text(model, OWN_TEXT_CHARS))

    async def _surprise(self, body: Body) -> Mapping[str, Any]:
        served, text = self._served(body), body.text("text", SCORED_CHARS)
        body.end()
        return await self._threads.long(lambda: work.surprise(served, text, LIKELIEST))

    async def _ranked_units(self, body: Body) -> Mapping[str, Any]:
        served, text = self._served(body), body.text("text", UNIT_CHARS)
        count = body.whole("count", 1, 50, 5)
        body.end()
        return await self._threads.long(lambda: self._units.ranked(served, text, count))

    async def _unit(self, body: Body) -> Mapping[str, Any]:
        served, text, unit = self._served(body), body.text("text", UNIT_CHARS), body.text("unit", NAME_CHARS)
        body.end()
        return await self._threads.long(lambda: self._units.one(served, text, unit))

    async def _strongest(self, body: Body) -> Mapping[str, Any]:
        served, text = self._served(body), body.text("text", UNIT_CHARS)
        place = body.whole("place", 0, UNIT_CHARS - 1)
        body.end()
        return await self._threads.long(lambda: self._units.strongest(served, text, place))

    # Train

    async def _runs(self) -> Mapping[str, Any]:
        self._refuse_where_not_allowed()  # what other runs are called, and write, is for this machine alone
        found = await asyncio.to_thread(lambda: [run_views.summary(run) for run in run_views.own_runs().values()])
        return {"runs": found, "training": await asyncio.to_thread(self._training.state)}

    async def _run(self, body: Body) -> Mapping[str, Any]:
        self._refuse_where_not_allowed()
        name = body.text("run", 1000)
        body.end()

        def read() -> dict[str, Any]:
            run = run_views.run_named(name)
            return {**run_views.progress(run), "sample": self._samples.of(run)}

        return await self._threads.long(read)

    async def _train(self, body: Body) -> Mapping[str, Any]:
        self._refuse_where_not_allowed()
        cell = body.one_of("cell", cells.names(), ModelSettings.cell)
        seconds = round(60 * body.number("minutes", MINUTES_LEAST, MINUTES_MOST))
        name = body.text("name", NAME_CHARS, "").strip()
        if body.has("corpus"):
            corpus, text = body.one_of("corpus", _corpora()), None
            if Path(corpus).exists():
                raise bad(
                    f"a file called {corpus} lies where the server was started, and would be read instead", "corpus"
                )
        else:
            corpus, text = STDIN, body.text("text", CORPUS_CHARS)
            if not text.strip():
                raise bad("the text is empty: paste one, or choose a corpus", "text")
        body.end()
        run = _new_name(name, "text" if corpus == STDIN else corpus, cell)
        arguments = ["--cell", cell, "--budget", f"{max(1, seconds)}s", "--name", run, "--", corpus]
        await asyncio.to_thread(self._training.begin, run, arguments, text)
        return self._training.state()

    async def _resume(self, body: Body) -> Mapping[str, Any]:
        self._refuse_where_not_allowed()
        run = await asyncio.to_thread(run_views.run_named, body.text("run", 1000))
        body.end()
        if run.is_bundled():
            raise bad(f"{run.name} comes with charrnn, and is complete", "run")
        await asyncio.to_thread(self._training.begin, run.name, ["--resume", run.name])
        return self._training.state()

    async def _stop(self, body: Body) -> Mapping[str, Any]:
        self._refuse_where_not_allowed()
        name = body.text("run", 1000)
        body.end()
        await asyncio.to_thread(self._training.stop, name)
        return self._training.state()

    def _refuse_where_not_allowed(self) -> None:
        if not self._may_train:
            raise RequestError(
                403,
                "other machines reach this server: it trains nothing, and shows no other runs, without --allow-train",
                code="training_not_allowed",
            )

    # Compare

    async def _comparisons(self) -> Mapping[str, Any]:
        return {"comparisons": list(await asyncio.to_thread(run_views.comparisons))}

    async def _comparison(self, body: Body) -> Mapping[str, Any]:
        name = body.text("name", 1000)
        body.end()
        return await self._threads.long(lambda: run_views.comparison(name))


def _telling(tell: Callable[[], Awaitable[Mapping[str, Any]]]) -> Handler:
    """Return the handler of a route that is asked for nothing in particular."""

    async def handler(request: "Request") -> "Response":
        return json_response(await tell())

    return handler


async def _awaited(answer: Awaitable[Mapping[str, Any]]) -> Mapping[str, Any]:
    return await answer


def _model(served: Served) -> dict[str, Any]:
    architecture = served.decoder.architecture
    return {
        "id": served.name,
        "cell": architecture.cell,
        "hidden": architecture.hidden,
        "layers": architecture.layers,
        "parameters": architecture.count(),
    }


def _sampling(body: Body) -> Sampling:
    top_p = body.number("top_p", 0, 1, 1.0)
    return Sampling(
        body.number("temperature", 0, 10, DEFAULT_TEMPERATURE),
        top_p=None if top_p == 1 else top_p,
        seed=body.whole("seed", 0, 2**53, DEFAULT_SEED),  # what JavaScript counts exactly
    )


@functools.cache
def _always_here() -> tuple[str, ...]:
    return (*corpora.embedded(), *python_corpora.READERS)


def _corpora() -> list[str]:
    """List the corpora that have a name and can be read without fetching."""
    return [*_always_here(), *(name for name in catalogue.ENTRIES if catalogue.path_of(name).exists())]


def _new_name(given: str, corpus: str, cell: str) -> str:
    """Return the name of a new run: the one that is given, or one that says what it is and is free.

    Raises RequestError for one that no run of the page may have, or that is taken.
    """
    taken = {path.name for path in home().iterdir()} if home().is_dir() else set()
    if given:
        if not NAME.fullmatch(given) or given == "latest":
            raise bad("name: use letters, digits, spaces, '-', '_', '+' and '.', and begin with a letter", "name")
        if given in taken:
            raise bad(f"there is {given} already: choose another name", "name")
        return given
    base, number = f"{corpus}-{cell}", 1
    while (name := base if number == 1 else f"{base}-{number}") in taken:
        number += 1
    return name
