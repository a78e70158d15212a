"""The speed of a server: near that of its rows, and the first character soon. Alone, on a quiet machine."""

import time

import pytest
from serving import Client, Server, until

pytest.importorskip("uvicorn")
pytest.importorskip("starlette")
OTHERS = 16


@pytest.mark.long  # what is asked for is not reached yet: docs/results/serving.md
def test_clients_together_get_most_of_what_rows_give_without_a_server() -> None:
    from charrnn.bench import bench_serve

    rows = bench_serve.measure("lstm", 512, 2, 2.0)
    (share,) = (r["share_of_rows"] for r in rows if r["clients"] == 64 and r["answers"] == "whole")
    assert share >= 0.7


@pytest.mark.long
def test_the_first_character_comes_soon_while_others_run() -> None:
    from charrnn.bench import bench_serve

    with Server([bench_serve.fresh_model("lstm", 512, 2)]) as server:
        client = Client(server)
        long = {"model": "fresh", "prompt": "Once upon a time", "max_tokens": 100_000, "stream": True}
        held = [client.raw(client.request({**long, "seed": n})) for n in range(OTHERS)]
        until(lambda: server.service.running == OTHERS)
        seconds = []
        for n in range(9):
            began = time.monotonic()
            with client.raw(client.request({**long, "seed": 100 + n})) as connection:
                received = b""
                while b"data: " not in received:
                    received += connection.recv(10_000)
                seconds.append(time.monotonic() - began)
            until(lambda: server.service.running == OTHERS)
        for connection in held:
            connection.close()
    assert sorted(seconds)[len(seconds) // 2] < 0.1
