"""Decoders of packed bytes: ciphertexts, sums, pledges, shares, frames."""

import socket
import struct
from collections.abc import Sequence

import numpy as np
from hypothesis import strategies as st

from fedsecure.body import BodySum, Form, cut_sum
from fedsecure.ciphertext import (
    HEADER_BYTES,
    SEED_BYTES,
    Ciphertext,
    Wire,
    from_bytes,
    to_bytes,
)
from fedsecure.daemons import frames
from fedsecure.keys import SigningKey
from fedsecure.outgoing import Outgoing
from fedsecure.pledge import pledge_bytes, read_pledge, read_secrets
from fedsecure.relay import receive, send
from fedsecure.running_sum import RunningSum
from fedsecure.shares import SECRET_BYTES, SHARE_BYTES, coefficients, combine, split
from tests.fuzz.mutations import mutated
from tests.fuzz.target import Target

KEY_ID = bytes(range(16))
MODULUS = (1 << 60) - (1 << 14) + 1
SITES = 3
_RNG = np.random.default_rng(3)
SECRETS = [_RNG.bytes(SECRET_BYTES) for _ in range(3)]
PLACES = (0, 2)
FRAME_LIMIT = 1 << 14
"""Fits a socket's buffer, so that one thread is enough."""


def sample(blocks: int, polynomials: int, seeds: int, summands: int = 1) -> Ciphertext:
    """Return a ciphertext of fair residues, N = 1024."""
    shape = (blocks, polynomials, 1024)
    residues = _RNG.integers(0, 1 << 59, shape, dtype=np.uint64)
    carried = tuple(_RNG.bytes(blocks * SEED_BYTES) for _ in range(seeds))
    return Ciphertext(KEY_ID, MODULUS, residues, carried, summands)


UPDATES = [to_bytes(sample(b, p, s)) for b, p, s in ((1, 1, 1), (2, 1, 1), (1, 2, 0))]
SUMS = [to_bytes(sample(2, 1, 3, 3)), to_bytes(sample(1, 2, 0, 3))]
FORM = Form((UPDATES[0][:HEADER_BYTES], UPDATES[2][:HEADER_BYTES]))
BODY = UPDATES[0] + UPDATES[2] + b"pledge"


def _ciphertext(data: bytes) -> None:
    found = from_bytes(data, key_id=KEY_ID, max_summands=4)
    assert to_bytes(found) == data
    assert found.residues.max() < found.modulus


def _running_sum(data: bytes) -> None:
    total = RunningSum(KEY_ID, max_summands=4)
    total.add(Wire(data, key_id=KEY_ID, max_summands=4))
    assert to_bytes(total.total()) == data


def _body(data: bytes) -> None:
    wires, rest = FORM.wires(data, KEY_ID)
    total = BodySum(KEY_ID, len(wires), max_summands=4)
    total.add(wires)
    assert b"".join(total.chunks()) + bytes(rest) == data


def _form(data: bytes) -> None:
    found = Form.read(data)
    assert found.to_bytes() == data
    assert found.size > 0


def _sum(data: bytes) -> None:
    pieces, rest = cut_sum(data, 2)
    assert b"".join((*pieces, rest)) == data
    for piece in pieces:
        for chunk in Wire(piece, key_id=KEY_ID, max_summands=4).chunks():
            assert chunk.residues.size


def _pledge(data: bytes) -> None:
    found = read_pledge(data, SITES)
    assert found.to_bytes() == data
    assert len(found.promises) == len(found.bundles) == SITES


def _secrets(data: bytes) -> None:
    assert b"".join(read_secrets(data, len(SECRETS))) == data


def _shares(data: bytes) -> None:
    """Two shares: the secret, or another 16 bytes that its promise then refuses."""
    pieces = {p: data[i * SHARE_BYTES :][:SHARE_BYTES] for i, p in enumerate(PLACES)}
    assert len(combine(pieces, coefficients(PLACES))) == SECRET_BYTES


def _share_samples() -> Sequence[bytes]:
    made = split(SECRETS[0], SITES, len(PLACES))
    return [made[PLACES[0]] + made[PLACES[1]], b"\xff" * 2 * SHARE_BYTES]


def _worker_frame(data: bytes) -> None:
    head, body = frames.unpack(data)
    assert data.endswith(bytes(body))
    if "layout" in head:
        frames.read_layout_document(head["layout"])


def _worker_samples() -> Sequence[bytes]:
    layout = [["w", [2, 3]], ["b", [3]]]
    heads = ({"ok": True, "layout": layout}, {"rows": 5}, {"layout": [["w", [0]]]})
    return [frames.pack(head, bytes(72)).to_bytes() for head in heads]  # type: ignore[arg-type]


def _relay(data: bytes) -> None:
    """A frame over a socket, both ends here: what was announced, or refused."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(data[: 2 * FRAME_LIMIT])
        theirs.shutdown(socket.SHUT_WR)
        found = receive(ours, FRAME_LIMIT)
    (announced,) = struct.unpack_from("<Q", data)
    assert found == data[8 : 8 + announced]


def _relay_samples() -> Sequence[bytes]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        send(ours, Outgoing.of(b"frame" * 50), FRAME_LIMIT)
        return [theirs.recv(FRAME_LIMIT), struct.pack("<Q", 1 << 40), bytes(8)]


def _signature(data: bytes) -> None:
    key = SigningKey.from_bytes(b"k" * 32)
    key.public.verify(data[:64], data[64:])
    assert data[:64] == key.sign(data[64:])


def _signed_samples() -> Sequence[bytes]:
    key = SigningKey.from_bytes(b"k" * 32)
    return [key.sign(text) + text for text in (b"", b"text")]


PLEDGES = [_RNG.bytes(pledge_bytes(n)) for n in (SITES, SITES + 1)]
WIRE_TARGETS = (
    Target("ciphertext", mutated([*UPDATES, *SUMS]), _ciphertext),
    Target("running-sum", mutated([*UPDATES, *SUMS]), _running_sum),
    Target("update-body", mutated([BODY, *UPDATES]), _body),
    Target("form", mutated([FORM.to_bytes(), *FORM.headers]), _form),
    Target("sum-body", mutated([SUMS[0] + SUMS[1], *SUMS]), _sum),
    Target("pledge", mutated(PLEDGES), _pledge),
    Target("mask-secrets", mutated([b"".join(SECRETS), SECRETS[0]]), _secrets),
    Target("shares", mutated(_share_samples()), _shares),
    Target("worker-frame", mutated(_worker_samples()), _worker_frame),
    Target("relay-frame", mutated(_relay_samples()), _relay),
    Target("signature", st.one_of(mutated(_signed_samples())), _signature),
)
