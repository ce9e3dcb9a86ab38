"""Nodes of a simulation say which site they are, once."""

from collections.abc import Iterable
from typing import Any

import pytest
from flwr.app import Error, Message

from fedsecure.errors import ConfigurationError
from fedsecure.flower import records
from fedsecure.flower.rollcall import WHO, rollcall


@pytest.fixture(autouse=True)
def _identity(monkeypatch: pytest.MonkeyPatch) -> None:
    """Say which run this process serves, as Flower does before it makes messages."""
    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(f"flwr.supercore.task_identity.TaskIdentity.{name}", 1)


class Nodes:
    """A grid whose nodes answer at once; a name of None is an error."""

    def __init__(self, names: dict[int, str | None]) -> None:
        self.names = names
        self.asked: list[int] = []

    def get_node_ids(self) -> Iterable[int]:
        return list(self.names)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        return [self._reply(sent) for sent in messages]

    def _reply(self, sent: Message) -> Message:
        assert records.read(sent, 10) == WHO
        node = sent.metadata.dst_node_id
        self.asked.append(node)
        sent.metadata.__dict__["_message_id"] = f"m-{node}"
        name = self.names[node]
        if name is None:
            return Message(Error(1, "KeyError"), reply_to=sent)
        return records.reply(name.encode(), sent)


def directory(nodes: Any, sites: int) -> Any:
    return rollcall(nodes, sites)


def test_every_node_is_known_by_the_site_it_names() -> None:
    found = directory(Nodes({7: "site-02", 9: "site-01"}), 2)()
    assert found == {"site-02": 7, "site-01": 9}


def test_a_node_that_answered_is_not_asked_again() -> None:
    nodes = Nodes({7: "site-02", 9: "site-01"})
    ask = directory(nodes, 2)
    ask()
    ask()
    assert sorted(nodes.asked) == [7, 9]


def test_a_node_that_comes_late_is_asked_then() -> None:
    nodes = Nodes({7: "site-02"})
    ask = directory(nodes, 2)
    assert ask() == {"site-02": 7}
    nodes.names[9] = "site-01"
    assert ask() == {"site-02": 7, "site-01": 9}


def test_an_app_without_the_mod_is_told_what_is_missing() -> None:
    with pytest.raises(ConfigurationError, match="put secure_mod first in ClientApp"):
        directory(Nodes({7: None}), 1)()
