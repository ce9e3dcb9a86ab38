"""A release's checkpoint: complete, by the same configuration, and nothing twice."""

import json
from collections import Counter
from dataclasses import replace

import pytest

from fedsecure.errors import ConfigurationError
from tests.fakes.federation import Federation
from tests.fakes.fuses import Died, Fuse
from tests.fakes.metadata import engine
from tests.fakes.store import FlakyStore


def test_a_release_names_configuration_code_key_and_heads() -> None:
    federation = Federation()
    federation.lead()
    head = engine(federation.state).journal.head(federation.terms.run)
    assert head is not None
    manifest = federation.vault("agg-1").manifest(head)
    assert manifest.plan == federation.terms.plan_digest.hex()
    assert bytes.fromhex(manifest.key_id)
    assert bytes.fromhex(manifest.layout)
    assert set(json.loads(manifest.heads)) == set(federation.sites)


def test_a_leader_with_another_configuration_does_nothing() -> None:
    federation = Federation()
    with pytest.raises(Died):
        federation.lead("agg-1", Fuse("agg-1", dies_after=40))
    before = federation.journal()
    federation.terms = replace(federation.terms, plan_digest=b"o" * 32)
    with pytest.raises(ConfigurationError, match="configuration"):
        federation.lead("agg-2")
    assert federation.journal() == before


def test_what_did_not_change_is_not_written_again() -> None:
    federation, written = Federation(), Counter[str]()
    for store in federation.stores:
        _count(store, written)
    federation.lead()
    stored = federation.stores[0].objects
    sizes = {key: len(data) for key, data in stored.items()}
    copies, rounds = len(federation.stores), federation.terms.rounds
    begun = sum(size for key, size in sizes.items() if key.startswith("begin/"))
    assert begun > 0
    assert _bytes(written, "begin/") == copies * begun  # key, layout, first model
    assert len([key for key in sizes if key.startswith("obj/")]) == rounds
    lasting = sum(_bytes(written, kind) for kind in ("begin/", "obj/", "manifest/"))
    assert lasting == copies * sum(sizes.values())  # nothing else, nothing twice


def _bytes(written: "Counter[str]", kind: str) -> int:
    return sum(size for key, size in written.items() if key.startswith(kind))


def _count(store: FlakyStore, written: "Counter[str]") -> None:
    plain = store.put

    def put(key: str, value: bytes) -> None:
        plain(key, value)
        written[key] += len(value)

    store.put = put  # type: ignore[method-assign]
