"""Every private name of Flower this house uses, in one file, and nothing else.

Public Flower moves slowly, these names do not promise anything: a new minor version
begins with this file and its contract tests (FLOWER.md sections 3 and 10).
"""

import hashlib
import importlib.util
import threading
import uuid
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from flwr.app import Context, Error, Message, MessageType, RecordDict
from flwr.cli.build import build_fab_from_disk
from flwr.clientapp import ClientApp
from flwr.common.config import get_fab_config
from flwr.common.constant import NOOP_ACCOUNT_NAME, NOOP_FLWR_AID
from flwr.common.serde import fab_to_proto, user_config_to_proto
from flwr.proto.control_pb2 import (
    ListRunsRequest,
    RegisterNodeRequest,
    StartRunRequest,
)
from flwr.proto.task_pb2 import Task
from flwr.server.superlink.fleet.vce.backend import BackendConfig
from flwr.server.superlink.linkstate import LinkState, LinkStateFactory
from flwr.server.superlink.linkstate.in_memory_linkstate import (
    InMemoryLinkState,
    RunRecord,
)
from flwr.serverapp import Grid, ServerApp
from flwr.simulation import run_simulation
from flwr.supercore.constant import FLWR_IN_MEMORY_DB_NAME, NOOP_FEDERATION_ID
from flwr.supercore.control.control_http_client import ControlHttpClient
from flwr.supercore.error import ApiErrorCode, FlowerError
from flwr.supercore.fab import Fab
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.federation import NoOpFederationManager
from flwr.superlink.grid import InMemoryGrid

from fedsecure.errors import ConfigurationError, ProcessFailed

Deliver = Callable[[str, Message, Callable[[Message], Message]], Message | None]
"""Fault seam: (site, message, the app) -> its reply, or None to lose it."""

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")
_FOREVER = 1e300
_PULL = 0.005
_WHY = 2000


def deliver(
    site: str, message: Message, app: Callable[[Message], Message]
) -> Message | None:
    """Deliver as a perfect network does."""
    _ = site
    return app(message)


@dataclass(frozen=True, slots=True)
class Node:
    """A site of an in-memory federation: the app it runs, and its public key."""

    site: str
    public_key: bytes
    app: ClientApp
    config: Mapping[str, str | int | float | bool]


class InMemoryFederation:
    """Real apps, grid, records and messages in one process; no ray, no network.

    Parameters
    ----------
    nodes : list of Node
    seam : callable
        How messages are delivered; tests lose, delay and repeat them here.
    """

    def __init__(self, nodes: list[Node], seam: Deliver = deliver) -> None:
        self._nodes = nodes
        self._seam = seam
        self._factory = LinkStateFactory(
            FLWR_IN_MEMORY_DB_NAME, NoOpFederationManager(), ObjectStoreFactory()
        )
        state = self._factory.state()
        if not isinstance(state, InMemoryLinkState):
            raise ConfigurationError("Flower's in-memory state is no longer in memory")
        self._state = state
        self._stop = threading.Event()

    def run(self, server: ServerApp) -> None:
        """Run a ServerApp against the nodes until it ends.

        Raises
        ------
        Exception
            Whatever the ServerApp raises.
        """
        grid = self._grid()
        threads = [self._start(node) for node in self._nodes]
        context = Context(
            run_id=1, node_id=0, node_config={}, state=RecordDict(), run_config={}
        )
        try:
            server(grid, context)
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()

    def _grid(self) -> Grid:
        run = Run.create_empty(1)
        run.primary_task_id = 1
        run.federation_id = NOOP_FEDERATION_ID
        self._state.run_ids[1] = RunRecord(run=run)
        self._state.task_store[1] = Task(task_id=1, run_id=1)
        # Process-global in Flower: every federation of the process has the same.
        TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = 1
        grid = InMemoryGrid(state_factory=self._factory, pull_interval=_PULL)
        grid.set_run(run)
        return grid

    def _start(self, node: Node) -> threading.Thread:
        node_id = self._state.create_node(
            NOOP_FLWR_AID,
            NOOP_ACCOUNT_NAME,
            node.public_key,
            heartbeat_interval=_FOREVER,
        )
        self._state.acknowledge_node_heartbeat(node_id, _FOREVER)
        thread = threading.Thread(
            target=self._serve, args=(node, node_id), name=node.site, daemon=True
        )
        thread.start()
        return thread

    def _serve(self, node: Node, node_id: int) -> None:
        context = Context(
            run_id=1,
            node_id=node_id,
            node_config=dict(node.config),
            state=RecordDict(),
            run_config={},
        )
        while not self._stop.is_set():
            for message in self._state.get_message_ins(node_id=node_id, limit=1):
                reply = self._reply(node, message, context)
                if reply is not None:
                    _post_reply(self._state, reply)
            self._stop.wait(_PULL)

    def _reply(self, node: Node, message: Message, context: Context) -> Message | None:
        try:
            return self._seam(node.site, message, lambda m: node.app(m, context))
        except Exception as bad:  # noqa: BLE001 - what Flower does with any app's error
            error = Error(code=1, reason=f"{type(bad).__name__}: {bad}")
            return Message(error, reply_to=message)


def site_nodes(grid: Grid, sites: Mapping[bytes, str]) -> dict[str, int]:
    """Return the node id of every site that is online; a site is known by its key.

    Parameters
    ----------
    sites : mapping of bytes to str
        Public key as Flower keeps it -> site.
    """
    found = {}
    for node in grid.get_nodes():
        site = sites.get(node.public_key)
        if site is not None:
            found[site] = node.node_id
    return found


def asked_nodes(grid: Grid, sites: int) -> dict[str, int]:
    """Return the node id of every site by asking each node who it is.

    For Flower's simulation, whose nodes have no keys; on a network it would believe
    anyone, so nothing but the ray backend uses it.
    """
    found: dict[str, int] = {}
    while len(found) < sites:
        questions = [
            Message(RecordDict(), dst_node_id=node, message_type=MessageType.QUERY)
            for node in set(grid.get_node_ids()) - set(found.values())
        ]
        for reply in grid.send_and_receive(questions):
            if reply.has_content():
                name = reply.content.config_records["config"]["site"]
                found[str(name)] = reply.metadata.src_node_id
    return found


def run_on_ray(server: ServerApp, client: ClientApp, nodes: int, gpus: float) -> None:
    """Run both apps on Flower's official simulation engine until the server ends.

    Parameters
    ----------
    gpus : float
        Share of a GPU a client gets; 0: none.

    Raises
    ------
    ConfigurationError
        Ray is not installed.
    """
    if importlib.util.find_spec("ray") is None:
        raise ConfigurationError(
            "backend=ray needs the package ray: pip install 'fedsecure[simulation]'"
        )
    resources: BackendConfig = {"client_resources": {"num_cpus": 1.0, "num_gpus": gpus}}
    # The deprecated entry point is the only one that takes objects and no project.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run_simulation(server, client, nodes, backend_config=resources)


def _post_reply(state: LinkState, reply: Message) -> None:
    reply.metadata.__dict__["_message_id"] = uuid.uuid4().hex
    state.store_message_res(reply)


class Control:
    """A SuperLink's Control API: who reaches it may start code at every site.

    Parameters
    ----------
    address : str
        host:port; loopback of the aggregator's own machine.
    root : bytes
        PEM of the federation's authority.
    """

    def __init__(self, address: str, root: bytes) -> None:
        self._client = ControlHttpClient.from_server_address(address, False, root, [])

    def register(self, public_key: str, name: str) -> None:
        """Admit a supernode; one that is admitted already is no error.

        Raises
        ------
        ProcessFailed
            The SuperLink refuses it, or does not answer.
        """
        request = RegisterNodeRequest(public_key=public_key.encode(), name=name)
        try:
            _ask(self._client.RegisterNode, request)
        except SuperLinkRefused as refused:
            if refused.reason != ApiErrorCode.PUBLIC_KEY_ALREADY_IN_USE:
                raise ProcessFailed(f"{name} is not admitted: {refused}") from refused

    def start_run(self, bundle: bytes, values: Mapping[str, str]) -> int:
        """Start a run of an app bundle; return Flower's id of it.

        Raises
        ------
        ConfigurationError
            The bundle does not declare a key of `values`.
        ProcessFailed
            The SuperLink refuses it, or does not answer.
        """
        declared = get_fab_config(bundle)["tool"]["flwr"]["app"].get("config", {})
        unknown = sorted(set(values) - set(declared))
        if unknown:
            raise ConfigurationError(
                f"run config {unknown} is not declared by the app, which knows "
                f"{sorted(declared)}: add it to the bundle's pyproject.toml"
            )
        digest = hashlib.sha256(bundle).hexdigest()
        request = StartRunRequest(
            fab=fab_to_proto(Fab(digest, bundle, {})),
            override_config=user_config_to_proto(dict(values)),
            federation="",
        )
        return int(_ask(self._client.StartRun, request).run_id)

    def status(self, run_id: int) -> str:
        """Return a run's status: "running", "finished:completed", "finished:failed".

        After a failure's stands ": " and why, on one line: the ServerApp's own output
        is in no file of the SuperLink's.

        Raises
        ------
        ProcessFailed
            The SuperLink knows no such run, or does not answer.
        """
        answer = _ask(self._client.ListRuns, ListRunsRequest(run_id=run_id))
        found = answer.run_dict[run_id].status
        why = " ".join(found.details.split())[:_WHY]
        status = f"{found.status}:{found.sub_status}".rstrip(":")
        return f"{status}: {why}" if found.sub_status == "failed" and why else status

    def close(self) -> None:
        """Close the connection."""
        self._client.close()


class SuperLinkRefused(ProcessFailed):
    """A SuperLink did not do what its Control API was asked.

    Attributes
    ----------
    reason : int
        Flower's `ApiErrorCode`; 0: none.
    answered : bool
        Whether it said anything at all.
    """

    def __init__(self, bad: Exception) -> None:
        answer = getattr(getattr(bad, "response", None), "text", None)
        self.answered = answer is not None
        error = FlowerError.from_json(answer)
        self.reason = 0 if error is None else error.code
        told = "" if error is None else f": {error.message}"
        super().__init__(f"SuperLink: {type(bad).__name__}: {bad}{told}")


def _ask(call: Callable[[_Request], _Response], request: _Request) -> _Response:
    try:
        return call(request)
    except Exception as bad:
        # The edge to Flower, which lets the errors of its HTTP library through.
        raise SuperLinkRefused(bad) from bad


def build_bundle(app: Path) -> bytes:
    """Return the app bundle (FAB) of a folder with a Flower pyproject.toml."""
    with warnings.catch_warnings():
        # Flower's own use of pathspec: nothing an operator could mend.
        warnings.simplefilter("ignore", DeprecationWarning)
        return build_fab_from_disk(app)
