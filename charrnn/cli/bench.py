"""bench: the speed here, and how far it is from the limit."""

from typing import Any

import click

from charrnn.cli import options
from charrnn.errors import CharRNNError, how_to_install
from charrnn.training.settings import Settings


@click.command()
@click.argument("what", type=click.Choice(["train", "decode", "encode", "serve", "all"]), default="all")
@click.option("--cell", default=Settings.cell, show_default=True, metavar="NAME", help="The cell to measure.")
@click.option("--hidden", type=int, metavar="N", help="Its hidden size, instead of the usual ones.")
@click.option("--layers", type=int, metavar="N", help="Its layers.")
@click.option("--batch", type=int, metavar="N", help="In training, streams side by side.")
@click.option("--window", type=int, metavar="N", help="In training, characters between two steps.")
@click.option(
    "--device",
    type=options.DeviceChoice(["cpu", "cuda"]),
    default="cpu",
    show_default=True,
    help="cuda: training and decoding on a GPU.",
)
@click.option("--quick", is_flag=True, help="Within a minute, on fewer sizes.")
@options.as_json
def command(what: str, device: str, as_json: bool, **sizes: Any) -> None:
    """Measure training, decoding, encoding and serving against plain torch and what the machine can do.

    Every figure is the minimum of several, taken in turns with what it is compared to.
    """
    from charrnn.bench import bench, bench_onnx, bench_serve

    on_cpu = device == "cpu"
    if on_cpu and what in ("decode", "all") and not bench_onnx.available():
        click.echo(f"note: ONNX Runtime is not measured, since it is missing: {how_to_install('bench')}", err=True)
    if on_cpu and what in ("serve", "all") and not bench_serve.available():
        if what == "serve":
            raise CharRNNError("serving needs starlette and uvicorn", how_to_install("serve"))
        click.echo(f"note: serving is not measured, since it is missing: {how_to_install('serve')}", err=True)
    result: dict[str, Any] = {"machine": {}, "train": [], "decode": [], "encode": [], "serve": []}
    for kind, found in bench.run(what, device=device, **sizes):
        if kind == "machine":
            result["machine"] = found
        else:
            result[kind] += found
        if not as_json:
            (_machine if kind == "machine" else _rows)(kind, found)
    if as_json:
        options.print_json(result)


def _machine(kind: str, limits: dict[str, Any]) -> None:
    if "gpu" in limits:
        products = ", ".join(f"{name} {value:.0f} TFLOP/s" for name, value in limits["tflops"].items())
        reading = f"{limits['read_gb_per_s']:,.0f} GB/s"
        click.echo(f"{limits['gpu']}, torch {limits['torch']}: products {products}; reading {reading}")
        return
    click.echo(f"{limits['processor']}, {limits['threads']} threads, torch {limits['torch']}")
    for threads, peaks in limits["gflops"].items():
        reads = limits["read_gb_per_s"][threads]
        click.echo(
            f"{threads} thread{'s' if threads != '1' else ''}: products "
            + ", ".join(f"{name} {value:.0f} GFLOP/s" for name, value in peaks.items())
            + "; reading "
            + ", ".join(f"{size} {value:.0f} GB/s" for size, value in reads.items())
        )


def _rows(kind: str, rows: list[dict[str, Any]]) -> None:
    """Print a table: a line for each engine, under a title of what they have in common."""
    same = {
        key: value for key, value in rows[0].items() if all(row[key] == value for row in rows) and value is not None
    }
    columns = [key for key in rows[0] if key not in same and any(row[key] is not None for row in rows)]
    click.echo(f"\n{kind}: " + ", ".join(f"{key} {value}" for key, value in same.items()))
    table = [[key.replace("_", " ") for key in columns], *([_cell(key, row[key]) for key in columns] for row in rows)]
    widths = [max(len(line[i]) for line in table) for i in range(len(columns))]
    for line in table:
        click.echo(
            "  ".join(
                text.ljust(w) if i == 0 else text.rjust(w) for i, (text, w) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
        )


def _cell(key: str, value: Any) -> str:
    if value is None:
        return "-"
    if not isinstance(value, float):
        return str(value)
    if key.startswith("share"):
        return f"{value:.0%}"
    if key.startswith("ratio"):
        return f"{value:.2f}x"
    return f"{value:,.1f}" if value < 1000 else f"{value:,.0f}"
