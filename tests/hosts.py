"""Hosts with networks of their own, on one machine: network namespaces, joined by a bridge. They are made by root."""

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

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
        bucket = ["tbf", "rate", f"{bits_per_s}bit", "burst", "64kb", "latency", "400ms"]
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
        for host in hosts:
            subprocess.run(["ip", "netns", "del", host.name], capture_output=True)
        subprocess.run(["ip", "link", "del", bridge], capture_output=True)
