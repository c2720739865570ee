"""A Ray cluster of several nodes on this machine, for proofs: each node in a network namespace of its own.

Where namespaces cannot be made (they take root and iproute2), the nodes are separate raylets on the loopback, which can
be killed but not cut off.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

PORT = 6379
STORE_BYTES = 100_000_000
RAY = (sys.executable, "-m", "ray.scripts.scripts")
_START_S = 60.0
_WORKER = b"ray::Worker"
# Named like this because the defaults that Ray has for its type "fake_multinode" are not in its wheels.
PROVIDER = "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider"
UPDATERS = {"disable_node_updaters": True}  # nothing is to be installed there
COMMANDS = ("initialization", "setup", "head_setup", "worker_setup", "head_start_ray", "worker_start_ray")
HEAD_ID = f"{0:05d}".rjust(56, "f")  # as Ray's provider for tests calls the head


@dataclass
class Node:
    """One node of a cluster: its address, its namespace if it has one, and what keeps it up while it is there."""

    name: str
    address: str
    cpus: int
    space: str
    process: subprocess.Popen[bytes] | None = None


class Nodes:
    """Nodes of a Ray cluster on this machine; the first is the head.

    Parameters
    ----------
    folder : for what Ray writes; of a short path, because of its sockets
    cpus : that each node claims
    environment : what the nodes' processes have in theirs besides
    head : further options of the head

    Attributes
    ----------
    apart : whether nodes have networks of their own
    why_not : a sentence, if not
    """

    def __init__(
        self,
        folder: Path,
        cpus: tuple[int, ...],
        environment: dict[str, str] | None = None,
        head: tuple[str, ...] = (),
    ) -> None:
        self._folder, self._head = folder, head
        self._switch = f"cf{os.getpid()}s"
        self._environment = os.environ | {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_memory_monitor_refresh_ms": "0",  # the machine's memory is not the cluster's alone
        }
        self._more = environment or {}
        self.why_not = self._missing()
        self.apart = not self.why_not
        first = "198.18.0." if self.apart else "127.0.0."
        self.nodes = [
            Node(f"node {n}", f"{first}{n}", count, f"cf{os.getpid()}n{n}" if self.apart else "")
            for n, count in enumerate(cpus, 1)
        ]

    @property
    def address(self) -> str:
        """The cluster's."""
        return f"{self.nodes[0].address}:{PORT}"

    def __enter__(self) -> Self:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))  # which leaves nothing behind, as Ctrl-C does
        try:
            if self.apart:
                self._make_network()
            for node in self.nodes:
                self.raise_up(node)
        except BaseException:
            self._clear()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._clear()

    def raise_up(self, node: Node) -> None:
        """Start a node, or one that was lost again; return when it belongs to the cluster."""
        where: tuple[str, ...] = ("--address", self.address)
        if node is self.nodes[0]:
            where = ("--head", "--port", str(PORT), "--include-dashboard=false", *self._head)
        self._folder.mkdir(exist_ok=True)
        with (self._folder / f"{node.name[-1]}.log").open("wb") as log:
            node.process = subprocess.Popen(  # noqa: S603
                [
                    *(*self.inside(node), *RAY, "start", *where, "--node-ip-address", node.address, "--block"),
                    *("--num-cpus", str(node.cpus), "--object-store-memory", str(STORE_BYTES)),
                    *("--disable-usage-stats", "--temp-dir", str(self._folder / node.name[-1])),
                ],
                env=self._environment | self._more,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self._wait_for(node)

    def kill(self, node: Node) -> int:
        """Kill all processes of a node; return how many."""
        killed: set[int] = set()
        while found := self.processes(node) - killed:
            for process in found:
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            killed |= found
        if node.process is not None:
            node.process.wait()
        node.process = None
        return len(killed)

    def cut(self, node: Node, *, off: bool) -> None:
        """Take a node from the network, or give it back."""
        run("ip", "-n", self._switch, "link", "set", node.space[-8:], "down" if off else "up")

    def start(self, words: list[str], node: Node | None = None, output: Path | None = None) -> subprocess.Popen[bytes]:
        """Start a command on a node; on the head by default."""
        with (output or Path(os.devnull)).open("ab") as log:
            return subprocess.Popen(  # noqa: S603
                [*self.inside(node or self.nodes[0]), *words],
                env=self._environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def inside(self, node: Node) -> list[str]:
        """Return what goes before a command for it to run on a node."""
        return ["ip", "netns", "exec", node.space] if node.space else []

    def processes(self, node: Node) -> set[int]:
        """Return the processes of a node."""
        if node.space:
            return {int(one) for one in tried("ip", "netns", "pids", node.space).stdout.split()}
        return set() if node.process is None else {node.process.pid, *_descendants(node.process.pid)}

    def workers(self, node: Node) -> list[int]:
        """Return the processes of a node that embed, by their titles."""
        found = []
        for process in sorted(self.processes(node)):
            with suppress(OSError):
                if Path(f"/proc/{process}/cmdline").read_bytes().startswith(_WORKER):
                    found.append(process)
        return found

    def _missing(self) -> str:
        if os.geteuid() != 0 or shutil.which("ip") is None:
            return "network namespaces take root and iproute2"
        return tried("ip", "netns", "add", self._switch).stderr.decode().strip()

    def _make_network(self) -> None:
        """Join all nodes by a bridge, which is in a namespace, too, so that this machine's network stays as it is."""
        inside = ("ip", "-n", self._switch, "link")
        run(*inside, "add", "bridge", "type", "bridge")
        run(*inside, "set", "bridge", "up")
        for node in self.nodes:
            run("ip", "netns", "add", node.space)
            port, there = node.space[-8:], ("ip", "-n", node.space)
            run(*inside, "add", port, "type", "veth", "peer", "name", "eth0", "netns", node.space)
            run(*inside, "set", port, "master", "bridge", "up")
            run(*there, "addr", "add", f"{node.address}/24", "dev", "eth0")
            run(*there, "link", "set", "lo", "up")
            run(*there, "link", "set", "eth0", "up")
            run(*there, "route", "add", "default", "dev", "eth0")  # by it, Ray finds out the node's own address

    def _wait_for(self, node: Node) -> None:
        log, until = self._folder / f"{node.name[-1]}.log", time.monotonic() + _START_S
        while b"Ray runtime started" not in log.read_bytes():
            if time.monotonic() > until or node.process is None or node.process.poll() is not None:
                raise RuntimeError(f"{node.name} did not start:\n{log.read_text()}")
            time.sleep(0.2)

    def _clear(self) -> None:
        for node in reversed(self.nodes):
            self.kill(node)
            if node.space:
                tried("ip", "netns", "del", node.space)
        if self.apart:
            tried("ip", "netns", "del", self._switch)


def growing(folder: Path) -> Nodes:
    """Return a cluster whose head has no processors, and to which Ray's autoscaler adds up to two nodes with one.

    Its provider, which Ray has for tests, starts them where the head is.
    """
    config = {
        "cluster_name": "growing",
        "max_workers": 2,
        "provider": {
            "type": "external",
            "module": PROVIDER,
            "launch_multiple": True,
            "head_node_id": HEAD_ID,
            **UPDATERS,
        },
        "head_node_type": "ray.head.default",
        "available_node_types": {
            "ray.head.default": {"resources": {}, "node_config": {}, "max_workers": 0},
            "worker": {"resources": {"CPU": 1}, "node_config": {}, "min_workers": 0, "max_workers": 2},
        },
        "upscaling_speed": 1.0,
        "idle_timeout_minutes": 1.0,
        **{f"{name}_commands": [] for name in COMMANDS},
        **{name: {} for name in ("auth", "docker", "file_mounts")},
        "cluster_synced_files": [],
    }
    path = folder.with_suffix(".yaml")
    path.write_text(json.dumps(config))
    environment = {
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "RAY_FAKE_CLUSTER": "1",
        "RAY_enable_autoscaler_v2": "1",
        "RAY_CLOUD_INSTANCE_ID": HEAD_ID,
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD_ID,
    }
    return Nodes(folder, (0,), environment, (f"--autoscaling-config={path}",))


def run(*words: str) -> None:
    """Run a command that must succeed."""
    subprocess.run(words, check=True)  # noqa: S603


def tried(*words: str) -> subprocess.CompletedProcess[bytes]:
    """Run a command that may fail."""
    return subprocess.run(words, capture_output=True, check=False)  # noqa: S603


def _descendants(process: int) -> set[int]:
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                children.setdefault(int(fields[1]), []).append(int(entry.name))
    found: set[int] = set()
    left = [process]
    while left:
        new = children.get(left.pop(), [])
        found.update(new)
        left += new
    return found
