import logging
from pathlib import Path

import pytest

from fedsecure.assembly.fitness import require_fit
from fedsecure.config import AggregatorConfig
from fedsecure.errors import ConfigurationError, StorageError
from fedsecure.stores import Store
from tests.fakes.store import FlakyStore

FEDERATION = "ab" * 32


class Lost(FlakyStore):
    """A store whose host takes no connection."""

    def put(self, key: str, value: bytes) -> None:
        raise StorageError("no answer")


class Wrong(FlakyStore):
    """A store that answers, and not with what it was given."""

    def get(self, key: str, max_bytes: int) -> bytes:
        return bytes(len(super().get(key, max_bytes)))


def config(*hosts: str, quorum: int = 2, folders: tuple[str, ...] = ()) -> object:
    buckets = [{"url": f"https://{host}:8333", "bucket": "b"} for host in hosts]
    return AggregatorConfig.model_validate(
        {
            "plan": {},
            "deadline": 10.0,
            "lease": "/lease",
            "ttl": 3.0,
            "stores": [*buckets, *folders],
            "quorum": quorum,
        }
    )


def fit(asked: object, stores: list[Store], *up: str) -> None:
    assert isinstance(asked, AggregatorConfig)
    names = [s if isinstance(s, str) else s.shown for s in asked.stores]
    named = list(zip(names, stores, strict=True))
    require_fit(asked, named, FEDERATION, lambda host, port: host in up)


def test_three_stores_that_answer_are_fit() -> None:
    fit(config("a", "b", "c"), [FlakyStore() for _ in range(3)], "a", "b", "c")


def test_a_lost_host_keeps_nobody_from_starting(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        fit(config("a", "b", "c"), [FlakyStore(), Lost(), FlakyStore()], "a", "c")
    assert "https://b:8333/b/ takes no connection: 2 others" in caplog.text


def test_a_store_that_answers_wrongly_is_refused_although_enough_are_left() -> None:
    with pytest.raises(ConfigurationError, match=r"https://b:8333/b/: gave back"):
        fit(
            config("a", "b", "c"),
            [FlakyStore(), Wrong(), FlakyStore()],
            "a",
            "b",
            "c",
        )


def test_two_lost_hosts_are_two_too_many() -> None:
    with pytest.raises(ConfigurationError, match="2 of 3 stores are not usable"):
        fit(config("a", "b", "c"), [FlakyStore(), Lost(), Lost()], "a")


def test_a_folder_that_cannot_be_written_is_refused_at_any_rate() -> None:
    asked = config("a", "b", folders=("/ck",))
    with pytest.raises(ConfigurationError, match="/ck: no answer"):
        fit(asked, [FlakyStore(), FlakyStore(), Lost()], "a", "b")


def test_a_store_of_another_federation_is_refused(tmp_path: Path) -> None:
    stores: list[Store] = [FlakyStore(), FlakyStore()]
    stores[0].put("federation", b"fedsecure federation 1 " + b"cd" * 32 + b"\n")
    with pytest.raises(ConfigurationError):
        fit(config("a", "b"), stores, "a", "b")
