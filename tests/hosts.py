"""Hosts with networks of their own, on one machine: network namespaces, joined by a bridge. They are made by root.

Where what is sent is to take its time, they are joined by `delayed` instead: many kernels have no netem, which delays.
"""

import ctypes
import fcntl
import os
import select
import shutil
import struct
import subprocess
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

# Of Linux, for a network device whose frames a process reads and writes.
TUN = "/dev/net/tun"
SET_NAME, IS_TAP, WITHOUT_HEADER = 0x400454CA, 0x0002, 0x1000
NETWORK = 0x40000000  # the kind of namespace
FRAME = 65_000  # bytes, so that few frames have to be handed on
ADDRESS = 6  # bytes of it, at the beginning of a frame

# In namespaces of its own: a name, and in place of some folders empty ones that no other host sees.
OWN = """
hostname "$1"
for folder in $2; do mkdir -p "$folder" && mount -t tmpfs none "$folder" || exit 1; done
shift 2
exec "$@"
"""


def ip(*words: str) -> None:
    """Run `ip`."""
    subprocess.run(["ip", *words], check=True, capture_output=True)


@dataclass(frozen=True)
class Host:
    """A host of a network. number: counted from 1, the last part of its address."""

    number: int
    prefix: str

    @property
    def name(self) -> str:
        return f"{self.prefix}-{self.number}"

    @property
    def address(self) -> str:
        return f"10.77.0.{self.number}"

    @property
    def _cable(self) -> str:
        return f"v{os.getpid()}-{self.number}"

    def command(self, *words: str, private: Sequence[Path] = ()) -> list[str]:
        """Return a command as it is started on this host. private: folders without spaces that are its own there."""
        own = ["unshare", "--mount", "--uts", "sh", "-c", OWN, "sh", self.name, " ".join(map(str, private))]
        return ["ip", "netns", "exec", self.name, *own, *words]

    def cut_off(self) -> None:
        """Pull its cable."""
        ip("link", "set", self._cable, "down")

    def join(self) -> None:
        """Put its cable in."""
        ip("link", "set", self._cable, "up")

    def slow_down(self, bits_per_s: int) -> None:
        """Let what it sends go through a token bucket of `tc`, which many kernels have where they have no netem."""
        bucket = ["tbf", "rate", f"{bits_per_s}bit", "burst", "128kb", "latency", "400ms"]
        tc = ["ip", "netns", "exec", self.name, "tc", "qdisc", "replace", "dev", "eth0", "root", *bucket]
        subprocess.run(tc, check=True, capture_output=True)


@contextmanager
def network(count: int) -> Iterator[list[Host]]:
    """Make hosts 10.77.0.1 to 10.77.0.count, joined by a bridge; a test is skipped where that cannot be."""
    if os.name != "posix" or os.geteuid() or not shutil.which("ip"):
        pytest.skip("hosts of a network are made by root, with ip")
    bridge, prefix = f"cb{os.getpid()}", f"charrnn-{os.getpid()}"
    hosts = [Host(i, prefix) for i in range(1, count + 1)]
    try:
        ip("link", "add", bridge, "type", "bridge")
        ip("link", "set", bridge, "up")
        for host in hosts:
            ip("netns", "add", host.name)
            ip("link", "add", host._cable, "type", "veth", "peer", "name", "eth0", "netns", host.name)
            ip("link", "set", host._cable, "master", bridge, "up")
            ip("-n", host.name, "addr", "add", f"{host.address}/24", "dev", "eth0")
            ip("-n", host.name, "link", "set", "eth0", "up")
            ip("-n", host.name, "link", "set", "lo", "up")
        yield hosts
    finally:
        for host in hosts:  # its cable first: a namespace stays for as long as a process is in it
            subprocess.run(["ip", "link", "del", host._cable], capture_output=True)
            subprocess.run(["ip", "netns", "del", host.name], capture_output=True)
        subprocess.run(["ip", "link", "del", bridge], capture_output=True)


@contextmanager
def delayed(count: int, seconds: float) -> Iterator[list[Host]]:
    """Make hosts as `network` does, joined by a switch that hands on every frame so many seconds after it came."""
    if os.name != "posix" or os.geteuid() or not shutil.which("ip") or not os.path.exists(TUN):
        pytest.skip("hosts of a network are made by root, with ip and " + TUN)
    hosts = [Host(i, f"charrnn-{os.getpid()}") for i in range(1, count + 1)]
    ports: list[int] = []
    ended = threading.Event()
    switch = threading.Thread(target=_hand_on, args=(ports, seconds, ended), daemon=True)
    try:
        for host in hosts:
            ip("netns", "add", host.name)
            ports.append(_port_of(host))
            ip("-n", host.name, "link", "set", "eth0", "mtu", str(FRAME))
            ip("-n", host.name, "addr", "add", f"{host.address}/24", "dev", "eth0")
            ip("-n", host.name, "link", "set", "eth0", "up")
            ip("-n", host.name, "link", "set", "lo", "up")
        switch.start()
        yield hosts
    finally:
        ended.set()
        if switch.is_alive():
            switch.join()
        for port in ports:
            os.close(port)
        for host in hosts:
            subprocess.run(["ip", "netns", "del", host.name], capture_output=True)


def _port_of(host: Host) -> int:
    """Make the device eth0 of a host; return what its frames are read from and written to."""
    made: list[int | OSError] = []

    def make() -> None:  # in a thread of its own: the namespace is the thread's
        try:
            with open(f"/run/netns/{host.name}") as namespace:
                libc = ctypes.CDLL(None, use_errno=True)
                if libc.setns(namespace.fileno(), NETWORK):
                    raise OSError(ctypes.get_errno(), "setns")
            port = os.open(TUN, os.O_RDWR | os.O_NONBLOCK)
            fcntl.ioctl(port, SET_NAME, struct.pack("16sH22x", b"eth0", IS_TAP | WITHOUT_HEADER))
            made.append(port)
        except OSError as error:
            made.append(error)

    maker = threading.Thread(target=make)
    maker.start()
    maker.join()
    (port,) = made
    if isinstance(port, OSError):
        raise port
    return port


def _hand_on(ports: Sequence[int], seconds: float, ended: threading.Event) -> None:
    """Hand on frames until the end: each to the port from which its receiver was heard, else to all others."""
    known: dict[bytes, int] = {}
    waiting: deque[tuple[float, int, bytes]] = deque()  # all wait equally long, so the first came first
    while not ended.is_set():
        left = max(0.0, waiting[0][0] - time.perf_counter()) if waiting else 0.1
        for port in select.select(ports, [], [], left)[0]:
            frame = os.read(port, FRAME + 100)
            receiver, sender = frame[:ADDRESS], frame[ADDRESS : 2 * ADDRESS]
            known[sender] = port
            to = [known[receiver]] if receiver in known else [each for each in ports if each != port]
            waiting.extend((time.perf_counter() + seconds, each, frame) for each in to)
        while waiting and waiting[0][0] <= time.perf_counter():
            _, port, frame = waiting.popleft()
            with suppress(OSError):  # lost, as frames are where a host is not up yet, or too slow
                os.write(port, frame)
