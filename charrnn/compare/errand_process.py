"""The process in which one job from another machine is carried out: its order comes in, how it ended goes out.

It saves and ends when its input ends: when it is told to, and when the process that started it is gone.
"""

import platform
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import charrnn
from charrnn import strict_json
from charrnn.compare import machines
from charrnn.compare.errands import DONE, REFUSED, STOPPED, Order
from charrnn.compare.jobs import Job, one
from charrnn.errors import CharRNNError
from charrnn.hardware import processor
from charrnn.training import identity
from charrnn.training.config import Config, settings_from_json
from charrnn.training.run import Run
from charrnn.training.settings import Settings

# Ctrl-C, a terminal that closes, and what SLURM sends before the time of a job is over, are for who started this.
NOT_FOR_IT = tuple(getattr(signal, name) for name in ("SIGINT", "SIGHUP", "SIGUSR2") if hasattr(signal, name))


def main() -> int:
    """Carry out the order of standard input in the folder that is named; write how it ended to standard output."""
    for number in NOT_FOR_IT:
        signal.signal(number, signal.SIG_IGN)
    asked_to_stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: asked_to_stop.set())
    order = Order.of(sys.stdin.buffer.readline().decode())

    def wait() -> None:
        sys.stdin.buffer.read()
        asked_to_stop.set()

    threading.Thread(target=wait, daemon=True).start()
    try:
        answer = _answer(order, Run(Path(sys.argv[1])), asked_to_stop)
    except CharRNNError as error:
        answer = {"ended": REFUSED, "problem": f"{error.problem} (on {platform.node()})", "hint": error.hint}
    sys.stdout.write(strict_json.dumps(answer))
    sys.stdout.flush()
    return 0


def _answer(order: Order, run: Run, asked_to_stop: threading.Event) -> dict[str, Any]:
    settings = settings_from_json(strict_json.dumps(dict(order.config)), "an order")
    _refuse_another(order, settings)
    job = Job(run, settings, order.scored)
    done = job.done()  # its worker died before it could answer
    for progress in () if done else one(job, asked_to_stop.is_set):
        done = progress.done
    return {"ended": DONE if done else STOPPED}


def _refuse_another(order: Order, settings: Settings) -> None:
    """Raise CharRNNError where this machine would train another model, or at another speed where that matters."""
    if order.charrnn != charrnn.__version__:
        raise CharRNNError(
            f"this is charrnn {charrnn.__version__}, and {order.charrnn} asks", "install the same version everywhere"
        )
    if order.equations != identity.equations(Config.decided(settings)):
        raise CharRNNError(
            f"the equations of the cell {settings.cell} are others here", "put the same files of cells everywhere"
        )
    if order.processor not in (None, processor()):
        raise machines.unlike({order.processor, processor()})


if __name__ == "__main__":
    raise SystemExit(main())
