"""compare: which recurrent cell models a text best."""

import sys
from pathlib import Path
from typing import Any

import click

from charrnn import cli
from charrnn.cli import options
from charrnn.cli.train import interruptible

NOTEBOOK = "simple,rnn,lstm,gru,nn.RNN,nn.LSTM,nn.GRU"
COMPARED = {"cell", "cell_options", "steps", "epochs", "budget", "layers", "hidden", "seed"}


@click.command()
@click.argument("corpus", required=False)
@click.option("--cells", default=NOTEBOOK, show_default=True, metavar="A,B,...|all", help="The cells to compare.")
@click.option("--seeds", type=int, metavar="N", help="Runs of each cell, that differ in nothing else.  [default: 3]")
@click.option(
    "--match",
    type=click.Choice(["parameters", "hidden", "time"]),
    help="What is the same for all: the number of parameters and of steps, the width and the number of steps, or the "
    "number of parameters and the seconds.  [default: parameters]",
)
@click.option("--parameters", type=int, metavar="N", help="Parameters of every model; the default is --hidden's.")
@click.option("--hidden", type=int, metavar="N", help="Width of every model, or of the default cell, whose parameters the others get.")
@click.option("--budget", metavar="TIME", help="Training of one run: the slowest cell's, or everyone's with --match time.  [default: 60s]")
@click.option("--steps", type=int, metavar="N", help="Updates of every run, instead of a budget.")
@click.option("--lr-trials", type=int, metavar="K", help="Learning rates tried for every cell.  [default: 3]")
@click.option("--prime", default="", metavar="TEXT", help="What every cell is to complete; the default is a line of the test part.")
@click.option("--jobs", default=1, show_default=True, metavar="N", help="Runs side by side.")
@click.option("--baseline", metavar="RUN", help="A trained run to stand in the table too.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the comparison; the same one again goes on, or adds cells.")
@click.option("--from", "source", type=click.Path(path_type=Path), metavar="FILE", help="Repeat the comparison of a comparison.json.")
@options.as_json
@options.settings
def command(**given: Any) -> int:
    """Compare recurrent cells on CORPUS, fairly: which models it best, at what size, speed and cost."""
    raise NotImplementedError
