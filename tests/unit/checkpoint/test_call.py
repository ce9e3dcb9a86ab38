"""A call that never returns holds one thread, and nobody who does not need it."""

import threading

import pytest

from fedsecure.checkpoint.call import Call, Moved
from fedsecure.errors import StorageError, VerificationError

SOON, NEVER = 0.02, 30.0


@pytest.fixture
def gate() -> threading.Event:
    return threading.Event()


def _behind(gate: threading.Event, answer: int = 7) -> Call[int]:
    def ask(_: Moved) -> int:
        gate.wait(NEVER)
        return answer

    return Call("store-1", ask).start()


def test_what_was_answered_is_returned() -> None:
    call = Call("store-1", lambda _: 7).start()
    assert call.wait(NEVER)
    assert call.result() == 7


@pytest.mark.parametrize("kind", [VerificationError, KeyboardInterrupt])
def test_what_was_raised_is_raised(kind: type[BaseException]) -> None:
    def ask(_: Moved) -> int:
        raise kind("no")

    call = Call("store-1", ask).start()
    assert call.wait(NEVER)
    with pytest.raises(kind, match="no"):
        call.result()


def test_a_call_that_stands_still_is_waited_for_no_longer(
    gate: threading.Event,
) -> None:
    call = _behind(gate)
    assert not call.wait(SOON)
    with pytest.raises(StorageError, match="does not return"):
        call.result()
    gate.set()


def test_a_call_that_goes_on_is_waited_for(gate: threading.Event) -> None:
    def ask(moved: Moved) -> int:
        for _ in range(10):
            gate.wait(SOON)  # nobody sets it: time passes
            moved()
        return 7

    call = Call("store-1", ask).start()
    assert call.wait(5 * SOON)
    assert call.result() == 7


def test_who_waits_in_vain_is_told_to_stop(gate: threading.Event) -> None:
    call = _behind(gate)
    threading.Timer(SOON, call.give_up).start()
    assert not call.wait(NEVER)
    gate.set()


def test_a_call_that_was_left_says_when_it_is_over(gate: threading.Event) -> None:
    call, told = _behind(gate), threading.Event()
    assert call.leave(told.set)
    assert not told.is_set()
    gate.set()
    assert told.wait(NEVER)


def test_a_call_that_is_over_cannot_be_left() -> None:
    call = Call("store-1", lambda _: 7).start()
    call.wait(NEVER)
    assert not call.leave(lambda: None)


def test_a_refused_call_is_over_and_says_why() -> None:
    call = Call[int].refused("store-1", "two calls hang")
    assert call.wait(0.0)
    with pytest.raises(StorageError, match="two calls hang"):
        call.result()


def test_its_thread_holds_up_nobodys_end(gate: threading.Event) -> None:
    _behind(gate)
    mine = [t for t in threading.enumerate() if t.name == "store store-1"]
    assert mine
    assert all(thread.daemon for thread in mine)
    gate.set()
