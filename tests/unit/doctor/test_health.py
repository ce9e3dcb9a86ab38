import os
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fedsecure.doctor.health import require_serving
from fedsecure.errors import ConfigurationError, ProcessFailed
from fedsecure.relay import RelayServer
from tests.fakes.kits import kit, make_kits


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def kits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_kits(tmp_path_factory.mktemp("federation"), sites=1, port=free_port())


@contextmanager
def serving(kits: Path, name: str, address: str) -> Iterator[None]:
    """Serve TLS with the certificate of a member's kit until it was asked once."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(kits / name / "tls.crt", kits / name / "tls.key")
    host, _, port = address.rpartition(":")
    with socket.create_server((host, int(port))) as listening:
        listening.settimeout(5.0)
        thread = threading.Thread(target=_answer, args=(listening, context))
        thread.start()
        yield
        thread.join()


def _answer(listening: socket.socket, context: ssl.SSLContext) -> None:
    plain, _ = listening.accept()
    with plain, context.wrap_socket(plain, server_side=True) as secure:
        secure.recv(4096)


def test_an_aggregator_that_answers_as_itself_serves(kits: Path) -> None:
    address = kit(kits, "agg-1").roster.members["agg-1"].address
    with serving(kits, "agg-1", address):
        assert require_serving(kits / "agg-1") == f"agg-1 serves at {address}"


def test_an_aggregator_at_whose_port_nobody_answers_does_not_serve(kits: Path) -> None:
    with pytest.raises(ProcessFailed, match="agg-1 does not serve at 127"):
        require_serving(kits / "agg-1")


def test_another_member_at_the_port_is_not_the_aggregator(kits: Path) -> None:
    address = kit(kits, "agg-1").roster.members["agg-1"].address
    with (
        serving(kits, "agg-2", address),
        pytest.raises(ProcessFailed, match=r"held by urn:fedsecure:.*:agg-2"),
    ):
        require_serving(kits / "agg-1")


def test_a_node_serves_while_its_relay_listens(kits: Path) -> None:
    path = kits / "site-1" / "state" / "relay.sock"
    path.parent.mkdir(mode=0o700, exist_ok=True)
    server = RelayServer(path, lambda data: data, 1024, frozenset({os.getuid()}))
    server.start()
    assert require_serving(kits / "site-1") == f"site-1 serves at {path}"
    server.close()
    with pytest.raises(ProcessFailed, match="site-1 does not serve"):
        require_serving(kits / "site-1")


def test_a_folder_that_is_no_kit_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"no kit\.json"):
        require_serving(tmp_path)
