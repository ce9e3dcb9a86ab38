import errno
import os
import socket
import ssl
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fedsecure.doctor import probes
from fedsecure.provision import ca

URN = "urn:fedsecure:ab:aggregator:agg-1"
NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
DATED = b"HTTP/1.1 404 Not Found\r\ndate: Wed, 25 Nov 2020 12:00:00 GMT\r\n\r\n"


@pytest.fixture
def kit(tmp_path: Path) -> Path:
    now = datetime.now(UTC)
    root = ca.make_authority("heart", now)
    issuing = ca.make_issuing(root, "heart", now)
    chain, key = ca.issue(issuing, ["127.0.0.1"], URN, now)
    other = ca.make_authority("heart", now)
    files = {"ca.crt": root.pem()[0], "tls.crt": chain, "tls.key": key}
    for name, data in (files | {"other.crt": other.pem()[0]}).items():
        (tmp_path / name).write_bytes(data)
    return tmp_path


@pytest.fixture
def address(kit: Path) -> Iterator[str]:
    """Serve one TLS answer on loopback."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(kit / "tls.crt", kit / "tls.key")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(5.0)
        thread = threading.Thread(target=_answer, args=(listening, context))
        thread.start()
        yield f"127.0.0.1:{listening.getsockname()[1]}"
        thread.join()


def _answer(listening: socket.socket, context: ssl.SSLContext) -> None:
    try:
        plain, _ = listening.accept()
        with plain, context.wrap_socket(plain, server_side=True) as secure:
            secure.recv(4096)
            secure.sendall(DATED)
    except OSError:
        return  # the dialler refused the certificate


def test_an_aggregator_that_answers_is_known_by_its_certificate(
    kit: Path, address: str
) -> None:
    peer = probes.dial("agg-1", address, kit / "ca.crt")
    assert (peer.member, peer.problem) == (URN, "")


def test_an_answers_date_tells_the_clock(kit: Path, address: str) -> None:
    skew = probes.dial("agg-1", address, kit / "ca.crt").skew
    assert skew is not None
    assert skew < -3e7  # the answer is from 2020


def test_another_federations_aggregator_is_not_believed(
    kit: Path, address: str
) -> None:
    peer = probes.dial("agg-1", address, kit / "other.crt")
    assert "certificate does not verify" in peer.problem
    assert (peer.member, peer.skew) == ("", None)


@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.0.0.1:x", "127.0.0.1:99999"])
def test_nobody_there_is_a_problem_and_no_error(kit: Path, address: str) -> None:
    assert "no answer" in probes.dial("agg-1", address, kit / "ca.crt").problem


def test_an_authority_that_cannot_be_read_is_a_problem_and_no_error(
    kit: Path,
) -> None:
    (kit / "ca.crt").write_bytes(b"nonsense")
    assert probes.dial("agg-1", "127.0.0.1:1", kit / "ca.crt").problem


@pytest.mark.parametrize(
    ("answer", "skew"),
    [
        (b"HTTP/1.1 200 OK\r\nDate: Wed, 25 Nov 2026 12:00:07 GMT\r\n\r\n", 7.0),
        (b"HTTP/1.1 200 OK\r\ndate: Wed, 25 Nov 2026 11:00:00 GMT\r\n\r\n", -3600.0),
        (b"HTTP/1.1 200 OK\r\n\r\n", None),
        (b"HTTP/1.1 200 OK\r\nDate: yesterday\r\n\r\n", None),
        (b"HTTP/1.1 200 OK\r\nDate: \xff\xfe\r\n\r\n", None),
        (b"HTTP/1.1 200 OK\r\nDate: Wed, 25 Nov 2026 12:00:07 -0000\r\n\r\n", None),
        (b"HTTP/1.1 200 OK\r\nDate: Wed, 99 Nov 2026 12:00:07 GMT\r\n\r\n", None),
        (b"HTTP/1.1 200 OK\r\nDate: Wed, 25 Nov 9999999 12:00:07 GMT\r\n\r\n", None),
        (b"", None),
    ],
)
def test_a_clock_is_read_from_a_good_date_only(
    answer: bytes, skew: float | None
) -> None:
    assert probes.skew_of(answer, NOW) == skew


def test_a_free_address_can_be_listened_at() -> None:
    assert probes.listen_problem("127.0.0.1", 0) is None


def test_a_held_port_is_in_use() -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
        assert probes.listen_problem("127.0.0.1", port) == errno.EADDRINUSE


def test_an_address_of_another_machine_cannot_be_listened_at() -> None:
    # 192.0.2.0/24 is nobody's (RFC 5737).
    assert probes.listen_problem("192.0.2.1", 0) == errno.EADDRNOTAVAIL


def test_certificate_and_key_of_one_kit_belong_together(kit: Path) -> None:
    assert probes.pair_problem(kit / "tls.crt", kit / "tls.key") == ""


def test_a_key_of_another_certificate_is_found(kit: Path) -> None:
    _, key = ca.issue_person(ca.make_authority("x", NOW), URN, NOW)
    (kit / "tls.key").write_bytes(key)
    problem = probes.pair_problem(kit / "tls.crt", kit / "tls.key")
    assert "belongs to another certificate" in problem


def test_a_missing_key_is_found(kit: Path) -> None:
    assert "cannot be read" in probes.pair_problem(kit / "tls.crt", kit / "none.key")


def test_a_good_folder_has_no_problem_and_stays_as_it_was(tmp_path: Path) -> None:
    place = probes.place("store 1", tmp_path)
    assert place.problem == ""
    assert place.device == tmp_path.stat().st_dev
    assert place.free > 0
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_looked_at_and_not_made(tmp_path: Path) -> None:
    place = probes.place("store 1", tmp_path / "a" / "b")
    assert place.problem == ""
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_folders_place_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert probes.place("store 1", tmp_path / "file").problem


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_a_problem(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert probes.place("store 1", tmp_path).problem


def test_memory_is_known_as_such() -> None:
    shm = Path("/dev/shm")  # noqa: S108 - looked at
    if not shm.is_dir():
        pytest.skip("this machine has no /dev/shm")
    assert probes.place("store 1", shm).kind == "tmpfs"


def test_devices_are_counted_by_their_files(tmp_path: Path) -> None:
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm", "null"):
        (tmp_path / name).touch()
    assert probes.gpus(tmp_path) == 2


def test_without_a_device_folder_there_is_no_gpu(tmp_path: Path) -> None:
    assert probes.gpus(tmp_path / "none") == 0


def test_looking_for_torch_does_not_import_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    assert probes.has_torch()
    assert "torch" not in sys.modules


def test_what_is_not_installed_has_no_version() -> None:
    found = probes.installed(["pytest", "no-such-distribution"])
    assert found == {"pytest": pytest.__version__, "no-such-distribution": None}
