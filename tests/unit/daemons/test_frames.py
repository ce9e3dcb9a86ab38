"""Frames between node daemon and worker: what was packed, without a copy of it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsecure.daemons.frames import pack, unpack
from fedsecure.errors import VerificationError


@given(text=st.text(max_size=20), body=st.binary(max_size=40))
def test_frame_comes_back_as_it_was_packed(text: str, body: bytes) -> None:
    head, found = unpack(pack({"do": text}, body).to_bytes())
    assert (head, bytes(found)) == ({"do": text}, body)


def test_body_is_sent_from_where_it_lies() -> None:
    model = memoryview(np.arange(3.0).data).cast("B")
    assert list(pack({}, model).pieces())[1] is model


@given(text=st.text(max_size=20))
def test_body_lies_as_numpy_likes_it(text: str) -> None:
    _, body = unpack(pack({"do": text}, bytes(8)).to_bytes())
    assert np.frombuffer(body, dtype="<f8").flags.aligned


@pytest.mark.parametrize("data", [b"\x02\0\0\0{", b"\xff\xff\xff\xff{}"])
def test_frame_that_is_cut_short_is_refused(data: bytes) -> None:
    with pytest.raises(VerificationError, match="cut short"):
        unpack(data)


def test_frame_whose_head_is_no_object_is_refused() -> None:
    with pytest.raises(VerificationError, match="no head"):
        unpack(b"\x02\0\0\0[]")


@pytest.mark.parametrize("head", [b"{", b"\xff{}", b"[" * 100_000])
def test_frame_whose_head_is_no_json_is_refused(head: bytes) -> None:
    with pytest.raises(VerificationError, match="not JSON"):
        unpack(len(head).to_bytes(4, "little") + head)
