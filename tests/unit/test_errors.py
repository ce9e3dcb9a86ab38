"""The error tree: one root, and what the command line and the peer are told."""

import inspect

import pytest

from fedsecure import errors
from fedsecure.errors import FedsecureError, Refused, StorageError

ALL = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, Exception)
]
REFUSALS = [kind for kind in ALL if issubclass(kind, Refused)]


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_every_error_has_one_root(kind: type[Exception]) -> None:
    assert issubclass(kind, FedsecureError)


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_no_error_ends_a_command_with_success(kind: type[FedsecureError]) -> None:
    assert kind.exit_code in {1, 2, 3}


def test_exit_code_tells_whose_move_it_is() -> None:
    assert errors.ConfigurationError.exit_code == 2
    assert errors.DataError.exit_code == 2
    assert errors.BudgetExhausted.exit_code == 3
    assert errors.StaleTerm.exit_code == 1


def test_refusals_have_different_codes() -> None:
    codes = [kind.code for kind in REFUSALS]
    assert len(codes) > 8
    assert len(set(codes)) == len(codes)


def test_a_silent_engine_is_no_answer() -> None:
    # "Somebody else holds it" is None; what could not be asked must never look like it.
    assert issubclass(errors.OutcomeUnknown, StorageError)
    assert not issubclass(errors.StaleTerm, StorageError)
    assert not issubclass(errors.LeaseLost, StorageError)
