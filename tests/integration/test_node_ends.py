"""SIGTERM of a real node daemon whose worker trains: it ends at once, and by itself.

No aggregator runs: a letter signed with one's key is put into the relay's socket.
"""

import json
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fedsecure import parts, relay
from fedsecure.access.kit import read_kit
from fedsecure.daemons.supervisor import descendants, named
from fedsecure.disk import SystemDisk
from fedsecure.envelope import Kind, Scope, parse, sign, verify
from fedsecure.errors import StorageError
from fedsecure.release import plan_digest
from fedsecure.shelf import read_layout
from fedsecure.trainer import JSON
from fedsecure.update import RoundId, model_digest
from tests.integration.test_daemons import PATIENCE, PROGRAM, alive, make_kits
from tests.integration.test_daemons import wait_until as wait

pytestmark = [pytest.mark.integration, pytest.mark.flower]

ME, LIMIT = "site-01", 1 << 24
MOST = 10_000
"""Epochs a round may have; of the digits they take minutes."""


class Node:
    """A node daemon of its own, and letters to it."""

    def __init__(self, folder: Path) -> None:
        kits = make_kits(folder)
        values = json.loads((kits / "agg-1" / "aggregator.json").read_bytes())
        self.plan = values["plan"]
        self.plan["train"]["epochs"] = MOST
        kit = read_kit(kits / "agg-1", SystemDisk(), lambda p: p.stat().st_mode)
        self.key, self.site = kit.signing, kit.roster.members[ME].signing
        self.socket = kits / ME / "state" / "relay.sock"
        self.process = subprocess.Popen([*PROGRAM, "node", "--kit", str(kits / ME)])

    def ask(self, letter: bytes) -> bytes:
        return relay.ask(self.socket, letter, LIMIT)

    def begin(self) -> bytes:
        """Have the run begin, and return the first letter that trains."""
        scope = Scope(RoundId(self.plan["run"], 0), ME, b"", b"", self._digest)
        header: dict[str, JSON] = {"term": 1, "plan": self.plan, "initial": True}
        answer = self.ask(self._sign(Kind.BEGIN_REQUEST, scope, header, b""))
        began = verify(parse(answer, LIMIT), self.site, kinds=(Kind.BEGIN,))
        given = parts.split(began)
        names = ("statement", f"wrap:{ME}", "layout", "initial")
        pieces = [(n.partition(":")[0], bytes(dict(given)[n])) for n in names]
        model = np.frombuffer(dict(pieces)["initial"], dtype="<f8")
        layout = read_layout(dict(pieces)["layout"]).digest()
        first = RoundId(self.plan["run"], 1)
        scope = Scope(first, ME, began.scope.key_id, layout, self._digest)
        header = {
            "term": 1,
            "plan": self.plan,
            "train": True,
            "after": 0,
            "input": model_digest(model).hex(),
            "keys": [{"first_round": 0, "custodian": ME}],
            "parts": parts.listing(pieces),
        }
        return self._sign(Kind.REQUEST, scope, header, parts.join(pieces))

    @property
    def _digest(self) -> bytes:
        return plan_digest(self.plan)

    def _sign(
        self, kind: Kind, scope: Scope, header: dict[str, JSON], body: bytes
    ) -> bytes:
        made = sign(kind, scope, header, body, signer="agg-1", key=self.key)
        return made.to_bytes()


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    made = Node(tmp_path)
    with made.process:
        try:
            yield made
        finally:
            made.process.kill()


def test_a_node_that_trains_ends_at_once_and_leaves_no_process(node: Node) -> None:
    assert wait(node.socket.is_socket)
    letter, said = node.begin(), list[str]()

    def ask() -> None:
        try:
            said.append(str(parse(node.ask(letter), LIMIT).kind))
        except StorageError as unanswered:
            said.append(str(unanswered))

    thread = threading.Thread(target=ask)
    thread.start()
    (worker,) = named(node.process.pid, "daemons.worker")
    before = ticks(worker)
    assert wait(lambda: ticks(worker) > before + 50)  # half a second of training
    below = descendants(node.process.pid)
    began = time.monotonic()
    node.process.send_signal(signal.SIGTERM)
    assert node.process.wait(PATIENCE) == 0
    assert time.monotonic() - began < 20  # the pass takes minutes
    thread.join(10)
    assert "does not answer" in said[0]
    assert [pid for pid in below if alive(pid)] == []


def ticks(pid: int) -> int:
    """Return how many hundredths of a second a process has computed."""
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rsplit(")", 1)[1].split()
    return int(fields[11])
