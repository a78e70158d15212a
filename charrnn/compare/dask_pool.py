"""The workers of a Dask scheduler, on any number of machines.

Dask pickles what it sends and unpickles what it gets: whoever reaches the scheduler runs programs on every machine that
takes part, this one included. So beyond this machine it is used with TLS, or where somebody says that he trusts the
network.
"""

import ipaddress
import socket
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import charrnn
from charrnn.compare import errands
from charrnn.compare.pools import Parcel, Pending
from charrnn.errors import CharRNNError, OptionError, how_to_install

PORT = 8786
CONNECT_SECONDS = 30
EXAMPLE = "for instance --on dask://192.168.1.10:8786"


def on_worker(order: str, parcel: Mapping[str, bytes], comparison: str) -> dict[str, Any]:
    """Carry out a job in a worker; end it, saved, when the comparison is stopped, or the worker lost its scheduler."""
    from distributed import get_worker

    worker: Any = get_worker()
    key = worker.get_current_task()

    def awaited() -> bool:
        task = worker.state.tasks.get(key)
        return task is not None and task.state == "executing" and worker.status.name in ("running", "paused")

    return errands.carry_out(order, parcel, lambda: comparison in _stopped or not awaited(), awaited)


_stopped: set[str] = set()  # comparisons that this worker was told to stop; a task has no other ear


def stop_on_worker(comparison: str) -> None:
    """Let the jobs of a comparison in this worker save and end."""
    _stopped.add(comparison)


class DaskPool:
    """The workers of a scheduler. address: dask://HOST:PORT, or tls://HOST:PORT with the certificates of Dask's own
    configuration. insecure: whether a network without TLS is trusted.

    Raises CharRNNError where there is no such scheduler, it has no workers, or they have another charrnn.
    """

    shared = False

    def __init__(self, address: str, insecure: bool = False) -> None:
        scheme, place = read_address(address, insecure)
        try:
            from distributed import Client, Security
        except ImportError:
            raise CharRNNError("--on dask:// needs the package distributed", how_to_install("dask")) from None
        if scheme == "tls" and Security().get_connection_args("client")["ssl_context"] is None:
            raise CharRNNError(
                f"{address} is asked for, and Dask's configuration names no certificates",
                "set distributed.comm.tls.ca-file, .client.cert and .client.key there (docs/machines.md)",
            )
        try:
            self._client = Client(
                f"{scheme}://{place}", timeout=CONNECT_SECONDS, set_as_default=False, name="charrnn-compare"
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise CharRNNError(
                f"no Dask scheduler answers at {scheme}://{place}: {error}", "start one there: dask scheduler"
            ) from None
        self._name, self._place = self._client.id, place
        try:
            self.slots, self.threads, self.unequal = self._workers()
        except BaseException:
            self._client.close()
            raise

    def submit(self, order: str, parcel: Parcel) -> Pending:
        """Send a job."""
        if self._client.status != "running":
            raise CharRNNError(
                f"the Dask scheduler at {self._place} is gone", "the same command goes on, once it is there"
            )
        future: Pending = self._client.submit(on_worker, order, parcel, self._name, pure=False)
        return future

    def ask_to_stop(self) -> None:
        """Tell all workers, without waiting for one that cannot be reached."""
        if self._client.status == "running":
            self._client.run(stop_on_worker, self._name, wait=False, on_error="ignore")

    def close(self) -> None:
        """End the connection; what is still asked for is cancelled by that."""
        self._client.close(timeout=5)

    def _workers(self) -> tuple[int, int, str | None]:
        """Return how many jobs all workers do at once, with how many threads, and what makes their time unequal."""
        client, hint = self._client, f"start some: dask worker {self._place} --nthreads 1"
        try:
            client.wait_for_workers(1, timeout=CONNECT_SECONDS)
        except TimeoutError:
            raise CharRNNError(f"the Dask scheduler at {self._place} has no workers", hint) from None
        try:
            facts = client.run(errands.facts)
        except ImportError as error:
            raise CharRNNError(
                f"a worker of {self._place} has no charrnn: {error}", "install the same version everywhere"
            ) from None
        for fact in facts.values():
            if fact["charrnn"] != charrnn.__version__:
                problem = f"{fact['host']} has charrnn {fact['charrnn']}, and this is {charrnn.__version__}"
                raise CharRNNError(problem, "install the same version everywhere")
        nthreads = client.nthreads()  # of all workers; some versions' scheduler_info tells of five alone
        at_once: dict[str, int] = {}
        for address, fact in facts.items():
            at_once[fact["host"]] = at_once.get(fact["host"], 0) + nthreads.get(address, 1)
        threads = max(1, min(fact["cores"] // at_once[fact["host"]] for fact in facts.values()))
        crowded = sorted(host for host, count in at_once.items() if count > 1)
        unequal = (
            f"{crowded[0]} does {at_once[crowded[0]]} runs at once, which slow each other down" if crowded else None
        )
        return sum(at_once.values()), threads, unequal


def read_address(address: str, insecure: bool) -> tuple[str, str]:
    """Return Dask's scheme, and host and port, of an address. Raises OptionError where it may not be used."""
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port or PORT
        (host or "").encode("idna")  # as a system is asked for it: ValueError where no host can be called so
    except ValueError as error:
        raise OptionError(f"{address} is no address: {error}", EXAMPLE) from None
    if not host or parts.path or parts.query or parts.username:
        raise OptionError(f"{address} is no address of a Dask scheduler", EXAMPLE)
    place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    if parts.scheme == "tls":
        return "tls", place
    if not insecure and not _is_this_machine(host):
        raise OptionError(
            f"{host} is another machine, and without TLS whoever is in the network between could run programs here",
            "give tls:// with certificates (docs/machines.md), or --insecure in a network that you trust",
        )
    return "tcp", place


def _is_this_machine(host: str) -> bool:
    """Tell whether all addresses of a host lead back to this machine."""
    try:
        found = {entry[4][0] for entry in socket.getaddrinfo(host, None)}
    except OSError:  # connecting says what is wrong with it
        return False
    return bool(found) and all(ipaddress.ip_address(str(each).partition("%")[0]).is_loopback for each in found)
