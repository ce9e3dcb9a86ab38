"""One SuperLink, one supernode, one run: TLS, node keys, our relay, ends by pid."""

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from fedsecure.daemons.supervisor import Child, named
from fedsecure.flower import commands
from fedsecure.flower.bundle import make_bundle
from fedsecure.flower.link import Control, build_bundle
from fedsecure.provision import ca
from fedsecure.relay import RelayServer
from tests.fakes.ports import free_port

pytestmark = [pytest.mark.integration, pytest.mark.flower]

SERVER_APP = """
import os, time
from pathlib import Path
from flwr.serverapp import ServerApp
from fedsecure.flower import records

app = ServerApp()

@app.main()
def main(grid, context):
    folder = Path(context.run_config["kit"])
    while not (nodes := list(grid.get_nodes())):
        time.sleep(0.05)
    letter = records.message(b"hello", nodes[0].node_id, "1")
    ids = list(grid.push_messages([letter]))
    while not (found := list(grid.pull_messages(ids))):
        time.sleep(0.05)
    (folder / "key").write_bytes(nodes[0].public_key)
    (folder / "flwr-home").write_text(os.environ["FLWR_HOME"])
    (folder / "answer").write_bytes(records.read(found[0], 1 << 20))
    while (folder / "stay").exists():
        time.sleep(0.05)
"""


@dataclass(frozen=True)
class Stack:
    """What runs, and where it writes."""

    folder: Path
    superlink: Child
    control: Control
    public_key: str


def until(done: Callable[[], bool], *needed: Child) -> None:
    """Wait for something that happens while some children run."""
    while not done():
        for child in needed:
            assert child.ended() is None, f"{child.name} ended"
        threading.Event().wait(0.05)


def answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1.0).close()
    except OSError:
        return False
    return True


def runs(pid: int) -> bool:
    """Return whether a process is there and no zombie."""
    try:
        return bool(Path(f"/proc/{pid}/cmdline").read_bytes())
    except OSError:
        return False


def write_keys(folder: Path) -> str:
    """Write certificates and a supernode's key; return its public half."""
    now = datetime.now(UTC)
    root = ca.make_authority("test", now)
    issuing = ca.make_issuing(root, "test", now)
    urn = "urn:fedsecure:test:aggregator:agg-1"
    chain, key = ca.issue(issuing, ["127.0.0.1"], urn, now)
    private, public = ca.make_supernode_key()
    (folder / "ca.crt").write_bytes(root.pem()[0])
    for name, data in (("tls.crt", chain), ("tls.key", key), ("node.key", private)):
        (folder / name).write_bytes(data)
        (folder / name).chmod(0o600)
    return public


def app(folder: Path) -> bytes:
    """Return the real client app with a server app of the test's own."""
    folder.mkdir()
    make_bundle(folder)
    (folder / "server" / "app.py").write_text(SERVER_APP, encoding="utf-8")
    return build_bundle(folder)


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with ExitStack() as end:
        name = end.enter_context(TemporaryDirectory(prefix="stack-"))
        folder = Path(name)
        public = write_keys(folder)
        relay = RelayServer(
            folder / "relay.sock", bytes.upper, 1 << 20, frozenset({os.getuid()})
        )
        end.callback(relay.close)
        relay.start()

        def start(name: str, command: list[str]) -> Child:
            environment = commands.environment(folder / "home" / name)
            child = Child(name, command, environment, folder / f"{name}.log")
            end.callback(child.end)
            return child

        port = free_port()
        tls = commands.Tls(folder / "ca.crt", folder / "tls.crt", folder / "tls.key")
        database = folder / "superlink.sqlite"
        superlink = start(
            "superlink", commands.superlink("127.0.0.1", port, tls, database)
        )
        until(lambda: answers(port), superlink)
        control = Control(f"127.0.0.1:{port}", (folder / "ca.crt").read_bytes())
        end.callback(control.close)
        control.register(public, "site-01")
        control.register(public, "site-01")  # as after a restart
        start(
            "supernode",
            commands.supernode(
                f"127.0.0.1:{port}",
                folder / "ca.crt",
                folder / "node.key",
                folder / "relay.sock",
                free_port(),
            ),
        )
        (folder / "stay").touch()
        run = control.start_run(app(folder / "app"), {"kit": str(folder)})
        until((folder / "answer").exists, superlink)
        assert control.status(run) == "running"
        yield Stack(folder, superlink, control, public)


def test_a_message_goes_through_supernode_and_relay_and_comes_back(
    stack: Stack,
) -> None:
    assert (stack.folder / "answer").read_bytes() == b"HELLO"


def test_the_site_is_known_by_the_key_it_was_registered_with(stack: Stack) -> None:
    assert (stack.folder / "key").read_text() == stack.public_key


def test_the_server_app_has_the_environment_of_its_superlink(stack: Stack) -> None:
    home = (stack.folder / "flwr-home").read_text()
    assert home == str(stack.folder / "home" / "superlink")


def test_a_superlink_that_is_killed_takes_superexec_and_server_app_along(
    stack: Stack,
) -> None:
    """Left alone they go on for some 10 s, and the ServerApp renews its lease."""
    pid = stack.superlink.pid
    below = [*named(pid, "flower-superexec"), *named(pid, "flwr-serverapp")]
    assert len(below) == 2
    os.kill(pid, signal.SIGKILL)
    until(lambda: stack.superlink.ended() is not None)
    assert not [p for p in below if runs(p)]
