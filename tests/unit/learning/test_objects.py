import pytest

from fedsecure.errors import ConfigurationError
from fedsecure.learning.objects import importable
from tests.fakes import userfunctions

USER = "tests.fakes.userfunctions"


def test_a_function_is_found_by_its_name() -> None:
    assert importable(f"{USER}:classes", "data.object") is userfunctions.classes


@pytest.mark.parametrize("name", ["", "json", "json:", ":dumps", "json:a.b", "j son:x"])
def test_a_malformed_name_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="must read package"):
        importable(name, "data.object")


def test_a_module_that_is_not_installed_is_named() -> None:
    with pytest.raises(ConfigurationError, match="importing no_such_module raised"):
        importable("no_such_module:load", "data.object")


def test_a_function_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigurationError, match="json has no such function"):
        importable("json:load_rows", "data.object")


def test_what_cannot_be_called_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="no such function"):
        importable(f"{USER}:NUMBER", "data.object")
