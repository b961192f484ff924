"""A second host: a network namespace, joined to this one by a cable that can be pulled."""

import ipaddress
import os
import shutil
import subprocess
from dataclasses import dataclass

# The block for benchmarks (RFC 2544) is in nobody's network; each process has a /30 of it.
BLOCK = ipaddress.ip_network("198.18.0.0/15")


class NoNamespaces(Exception):
    """This machine makes no network namespaces for us; the message says why."""


@dataclass
class Host:
    """One namespace; what runs in it reaches this machine at `near`, and nothing else."""

    name: str

    def __post_init__(self) -> None:
        subnets = BLOCK.num_addresses // 4
        first = BLOCK[4 * (os.getpid() % subnets)]
        self.near, self.far = str(first + 1), str(first + 2)

    def make(self) -> None:
        """Make the namespace and its cable; raises NoNamespaces."""
        if os.geteuid() != 0:
            raise NoNamespaces("network namespaces need root")
        if shutil.which("ip") is None:
            raise NoNamespaces("the command ip (package iproute2) is missing")
        try:
            _ip("netns", "add", self.name)
            _ip("link", "add", self.name, "type", "veth", "peer", "eth0", "netns", self.name)
            _ip("addr", "add", f"{self.near}/30", "dev", self.name)
            _ip("link", "set", self.name, "up")
            inside = ("-n", self.name)
            _ip(*inside, "addr", "add", f"{self.far}/30", "dev", "eth0")
            _ip(*inside, "link", "set", "eth0", "up")
            _ip(*inside, "link", "set", "lo", "up")
        except subprocess.CalledProcessError as error:
            self.remove()
            raise NoNamespaces(error.stderr.strip()) from error

    def remove(self) -> None:
        """Take it away, the cable with it."""
        subprocess.run(["ip", "netns", "del", self.name], check=False, capture_output=True)
        subprocess.run(["ip", "link", "del", self.name], check=False, capture_output=True)

    def command(self, words: list[str]) -> list[str]:
        """What runs `words` on this host."""
        return ["ip", "netns", "exec", self.name, *words]

    def cut(self) -> None:
        """Pull the cable: packets of both ways are lost, and nobody is told."""
        _ip("link", "set", self.name, "down")

    def heal(self) -> None:
        """Put it back."""
        _ip("link", "set", self.name, "up")


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)
