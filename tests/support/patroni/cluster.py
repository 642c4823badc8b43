"""The cluster as tests see it: who leads, and what may happen to whom."""

import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from tests.support.patroni import keeper
from tests.support.patroni.configuration import (
    LOOPBACK,
    SCOPE,
    Node,
    etcd_command,
    free_ports,
    gateway_command,
    haproxy_settings,
    patroni_settings,
    program,
)
from tests.support.programs import answers, descendants_of, eventually, first, is_alive

_NAMES: Final = ("one", "two", "three")
_ACCOUNTS: Final = ("postgres", "nobody")  # PostgreSQL refuses root
_ANSWER_SECONDS: Final = 5
_COMMAND_SECONDS: Final = 60
_LINES: Final = 30


@dataclass(frozen=True, slots=True)
class Member:
    """What Patroni says of one node."""

    name: str
    role: str  # leader, sync_standby, replica
    state: str
    timeline: int


class PatroniCluster:
    """Three PostgreSQL servers under Patroni, one etcd, and an HAProxy that leads to the primary.

    Calls block, and return when what they bring about is so; only one thread at a time may make them. Every process
    and every file goes with the `with` block, or with the process that entered it, however that ends.

    :param synchronous: a commit is acknowledged when a standby has it, and only such a standby is promoted.
    """

    def __init__(self, *, synchronous: bool = False) -> None:
        self.is_synchronous = synchronous
        self._keeper: subprocess.Popen[str] | None = None
        self._directory = Path()
        self._patroni: dict[str, int] = {}  # the process of each node
        self._gateways: dict[str, int] = {}
        self._etcd_ports: list[int] = []
        self.proxy_port: int = 0
        self.nodes: dict[str, Node] = {}

    def __enter__(self) -> Self:
        account = _account()
        self._directory = Path(tempfile.mkdtemp(prefix="pgchannels-patroni-", dir="/tmp"))
        self._keeper = subprocess.Popen(
            [sys.executable, keeper.__file__, account or "", str(self._directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # out of reach of the terminal's Ctrl-C
        )
        try:
            self._configure()
            _give_away(self._directory, account)
            self._start_all()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End everything, and return when it is gone."""
        if self._keeper is not None:
            with self._keeper:
                pass  # it ends with its input
            self._keeper = None

    # Where to connect

    def url(self, *names: str) -> str:
        """A URL with the hosts of these nodes, in this order, or of all."""
        hosts = ",".join(f"{LOOPBACK}:{self.nodes[name].port}" for name in names or self.nodes)
        return f"postgresql://postgres@{hosts}/postgres"

    @property
    def proxied_url(self) -> str:
        """The URL of HAProxy, which leads to the primary."""
        return f"postgresql://postgres@{LOOPBACK}:{self.proxy_port}/postgres"

    # Who is what

    def leader(self) -> str:
        """The node that takes writes; waits for one."""
        return first(lambda: filter(self._is_primary, self.nodes))

    def standbys(self) -> list[str]:
        """The nodes that do not lead."""
        leader = self.leader()
        return [name for name in self.nodes if name != leader]

    def synchronous_standby(self) -> str:
        """The standby that has every commit; waits for one."""
        return first(lambda: [member.name for member in self.members() if member.role == "sync_standby"])

    def members(self) -> list[Member]:
        """What Patroni says of its members; nothing while none of them answers."""
        for name in self.nodes:
            if (cluster := self._ask(name, "GET", "/cluster")) is not None:
                return [
                    Member(one["name"], one["role"], one["state"], one.get("timeline", 0)) for one in cluster["members"]
                ]
        return []

    def wait_until_whole(self) -> None:
        """Return when one node leads and the others follow it on its timeline, one of them in step if it should."""
        try:
            eventually(self._is_whole)
        except AssertionError as error:
            raise AssertionError(f"the cluster did not become whole:\n{self._description()}") from error

    # What may happen

    def make_synchronous(self, is_synchronous: bool) -> None:
        """Let commits wait for a standby soon, or no longer."""
        self.is_synchronous = is_synchronous
        settings = ("-c", str(self.nodes[self.leader()].settings))
        self._run("patronictl", *settings, "edit-config", SCOPE, "-s", f"synchronous_mode={is_synchronous}", "--force")

    def switch_over(self, *, to: str) -> None:
        """Let another node lead, as patronictl does it; returns when it does."""
        leader = self.leader()
        settings = ("-c", str(self.nodes[leader].settings))
        self._run("patronictl", *settings, "switchover", SCOPE, "--master", leader, "--candidate", to, "--force")
        eventually(lambda: self._is_primary(to))

    def kill(self, name: str) -> None:
        """SIGKILL a node's PostgreSQL and its Patroni; returns when they are gone."""
        pids, lock = self._all_of(name), keeper.lock_of(self.nodes[name].directory)
        _send(pids, signal.SIGKILL)
        eventually(lambda: not any(map(is_alive, pids)))
        keeper.remove_segment(lock)

    def start(self, name: str) -> None:
        """Start the Patroni of a node, which then starts its PostgreSQL, and makes it follow whoever leads."""
        node = self.nodes[name]
        self._patroni[name] = self._start([program("patroni"), str(node.settings)], node.log)

    def freeze(self, name: str) -> None:
        """Stop a node where it stands, with SIGSTOP, as a machine does that hangs."""
        _send(self._all_of(name), signal.SIGSTOP)

    def thaw(self, name: str) -> None:
        """Let the PostgreSQL of a frozen node go on as if nothing had been, under a new Patroni.

        The old one would write itself down as the leader again, whoever leads by now: Patroni 3.0 does that without a
        look, and counts on a watchdog to have reset the machine.
        """
        _send(self._patroni_of(name), signal.SIGKILL)
        _send(self._postgres_of(name), signal.SIGCONT)
        self.start(name)

    def isolate(self, name: str) -> None:
        """Close a node's way to etcd: nothing that it sends there is answered; clients reach it as before."""
        _send([self._gateways[name]], signal.SIGSTOP)

    def reunite(self, name: str) -> None:
        """Open a node's way to etcd again."""
        _send([self._gateways[name]], signal.SIGCONT)

    def wait_for_new_leader(self, after: str) -> str:
        """Return who leads in the place of a node, as soon as it does."""
        others = [name for name in self.nodes if name != after]
        return first(lambda: filter(self._is_primary, others))

    def _description(self) -> str:
        """The members, and the ends of their logs."""
        tails = [
            f"--- {name}\n" + "\n".join(node.log.read_text(errors="replace").splitlines()[-_LINES:])
            for name, node in self.nodes.items()
            if node.log.exists()
        ]
        return "\n".join([*map(str, self.members()), *tails])

    def _configure(self) -> None:
        etcd, peer, self.proxy_port, *ports = free_ports(3 + 3 * len(_NAMES))
        self._etcd_ports = [etcd, peer]
        for name in _NAMES:
            directory = self._directory / name
            directory.mkdir(mode=0o700)
            node = self.nodes[name] = Node(name, directory, ports.pop(), ports.pop(), ports.pop())
            node.settings.write_text(patroni_settings(node, synchronous=self.is_synchronous))
        settings = haproxy_settings(self.proxy_port, list(self.nodes.values()))
        (self._directory / "haproxy.cfg").write_text(settings)

    def _start_all(self) -> None:
        self._start(etcd_command(self._directory, *self._etcd_ports), self._directory / "etcd.log")
        eventually(lambda: answers(self._etcd_ports[0], "/health"))
        for node in self.nodes.values():
            self._gateways[node.name] = self._start(gateway_command(node, self._etcd_ports[0]), node.log)
        self.start(_NAMES[0])
        eventually(lambda: self._is_primary(_NAMES[0]))
        for name in _NAMES[1:]:
            self.start(name)
        command = [program("haproxy"), "-db", "-f", str(self._directory / "haproxy.cfg")]
        self._start(command, self._directory / "haproxy.log")
        self.wait_until_whole()

    def _start(self, command: list[str], log: Path) -> int:
        assert self._keeper is not None
        assert self._keeper.stdin is not None
        assert self._keeper.stdout is not None
        self._keeper.stdin.write(json.dumps({"command": command, "log": str(log)}) + "\n")
        self._keeper.stdin.flush()
        reply = self._keeper.stdout.readline()
        assert reply, f"the keeper ended instead of starting {command[0]}"
        return int(reply)

    def _run(self, name: str, *arguments: str) -> None:
        command = [program(name), *arguments]
        environment = {"LC_ALL": "C.UTF-8", "PATH": os.environ["PATH"], "HOME": str(self._directory)}
        done = subprocess.run(command, capture_output=True, text=True, timeout=_COMMAND_SECONDS, env=environment)
        assert done.returncode == 0, f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}"

    def _is_primary(self, name: str) -> bool:
        return answers(self.nodes[name].rest_port, "/primary")

    def _is_whole(self) -> bool:
        members = self.members()
        roles = sorted(member.role for member in members)
        expected = ["leader", "replica", "sync_standby"] if self.is_synchronous else ["leader", "replica", "replica"]
        are_well = all(member.state in ("running", "streaming") for member in members)
        return roles == expected and are_well and len({member.timeline for member in members}) == 1

    def _ask(self, name: str, method: str, path: str) -> Any:
        connection = HTTPConnection(LOOPBACK, self.nodes[name].rest_port, timeout=_ANSWER_SECONDS)
        with suppress(OSError, HTTPException):
            connection.request(method, path)
            answer = connection.getresponse()
            body = answer.read()
            connection.close()
            return json.loads(body)
        connection.close()
        return None

    def _all_of(self, name: str) -> list[int]:
        return [*self._patroni_of(name), *self._postgres_of(name)]

    def _patroni_of(self, name: str) -> list[int]:
        patroni = self._patroni[name]
        return [patroni, *descendants_of(patroni)]

    def _postgres_of(self, name: str) -> list[int]:
        postmaster = [int(line) for line in keeper.lock_of(self.nodes[name].directory)[:1]]
        return [*postmaster, *descendants_of(*postmaster)] if postmaster else []


def _account() -> str | None:
    if os.geteuid() != 0:
        return None
    for name in _ACCOUNTS:
        with suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    raise AssertionError(f"there is no account {' or '.join(_ACCOUNTS)} to run PostgreSQL as")


def _give_away(directory: Path, account: str | None) -> None:
    if account is not None:
        for path in (directory, *directory.rglob("*")):
            shutil.chown(path, account, pwd.getpwnam(account).pw_gid)


def _send(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)
