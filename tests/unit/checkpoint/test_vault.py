"""What aggregators keep survives bad copies, lost stores, and power lost anywhere."""

import contextlib
from dataclasses import dataclass, field, replace
from itertools import combinations

import pytest

from fedsecure.access.roster import Member, Role, Roster
from fedsecure.checkpoint import seal
from fedsecure.checkpoint.manifest import Manifest, read_manifest
from fedsecure.checkpoint.replicate import Replicas
from fedsecure.checkpoint.rosters import Rosters
from fedsecure.checkpoint.vault import Vault
from fedsecure.envelope import Kind, Scope, sign
from fedsecure.errors import (
    ConfigurationError,
    NotEnoughReplicas,
    NotFound,
    StorageError,
    VerificationError,
)
from fedsecure.keys import BoxKey, SigningKey
from fedsecure.metadata import Head
from fedsecure.release import Release, release_of, root
from fedsecure.update import RoundId
from tests.fakes.clock import FakeClock
from tests.fakes.disk import PowerLost
from tests.fakes.metadata import FakeJournal, State
from tests.fakes.store import FlakyStore, Power

NAMES = ("agg-1", "agg-2")
SIGNING = {n: SigningKey.from_bytes(bytes([i]) * 32) for i, n in enumerate(NAMES, 1)}
BOXES = {n: BoxKey.from_bytes(bytes([i]) * 32) for i, n in enumerate(NAMES, 11)}
STRANGER = SigningKey.from_bytes(b"s" * 32)
SITES = {"site-1": b"1" * 32, "site-2": b"2" * 32}
STEPS = 12  # of two releases: three objects and three manifests each


@dataclass
class World:
    """Three stores, of which two must hold an object, and two aggregators."""

    stores: list[FlakyStore] = field(
        default_factory=lambda: [FlakyStore() for _ in range(3)]
    )

    def vault(
        self,
        name: str = "agg-1",
        dies_at: int | None = None,
        rosters: Rosters | None = None,
        code: tuple[str, tuple[str, ...]] = ("", ()),
    ) -> Vault:
        power = Power(dies_at)
        for store in self.stores:
            store.power = power
        pairs = [(str(i), store) for i, store in enumerate(self.stores)]
        return Vault(
            Replicas(pairs, quorum=2),
            name,
            SIGNING[name],
            BOXES[name],
            {n: box.public for n, box in BOXES.items()},
            {n: key.public for n, key in SIGNING.items()},
            FakeClock(),
            rosters=rosters,
            app=code[0],
            app_before=code[1],
        )

    def copies(self, key: str) -> list[bytes]:
        return [s.objects[key] for s in self.stores if key in s.objects]

    def keys(self, prefix: str) -> list[str]:
        return sorted(
            {k for s in self.stores for k in s.objects if k.startswith(prefix)}
        )


@pytest.fixture
def world() -> World:
    return World()


def _release(
    number: int = 1, *, after: int = 0, body: bytes = b"sum", signer: str = "agg-1"
) -> tuple[bytes, Release]:
    release = release_of(RoundId("run", number), after, SITES, body)
    scope = Scope(release.round, "*", b"k" * 32, b"l" * 32, b"p" * 32)
    header = {**release.header(), "term": 1}
    key = SIGNING.get(signer, STRANGER)
    envelope = sign(Kind.RELEASE, scope, header, body, signer=signer, key=key)
    return envelope.to_bytes(), release


def _put(
    vault: Vault,
    number: int = 1,
    *,
    term: int = 1,
    previous: Head | None = None,
    body: bytes = b"sum",
) -> Head:
    after = 0 if previous is None else previous.round
    data, release = _release(number, after=after, body=body)
    return vault.release(data, release, root(SITES.items()), term, previous)


# --- updates --------------------------------------------------------------------------


def test_what_was_kept_is_read_by_each_aggregator(world: World) -> None:
    world.vault("agg-1").keep("update/1", b"data")
    assert world.vault("agg-1").read("update/1", 10) == b"data"
    assert world.vault("agg-2").read("update/1", 10) == b"data"


def test_what_two_leaders_sealed_each_on_some_stores_is_held(world: World) -> None:
    world.stores[1].down = world.stores[2].down = True
    with pytest.raises(NotEnoughReplicas):
        world.vault("agg-1").keep("update/1", b"data")
    world.stores[0].down, world.stores[1].down = True, False
    with pytest.raises(NotEnoughReplicas):
        world.vault("agg-2").keep("update/1", b"data")
    world.stores[0].down = False
    assert len(set(world.copies("update/1"))) == 2
    world.vault("agg-1").keep("update/1", b"data")
    world.stores[2].down = True
    world.vault("agg-2").keep("update/1", b"data")


@pytest.mark.parametrize("other", [b"dat0", b"", b"more data"])
def test_copy_that_opens_to_other_bytes_is_not_held(world: World, other: bytes) -> None:
    world.stores[0].down = world.stores[1].down = True
    with pytest.raises(NotEnoughReplicas):
        world.vault("agg-1").keep("update/1", other)
    world.stores[1].down = False
    with pytest.raises(NotEnoughReplicas, match="1 of 3"):
        world.vault("agg-2").keep("update/1", b"data")


def test_stores_never_see_the_plain_bytes(world: World) -> None:
    world.vault().keep("update/1", b"a plain update")
    assert all(b"a plain update" not in copy for copy in world.copies("update/1"))


def test_object_stored_under_another_name_does_not_open(world: World) -> None:
    world.vault().keep("update/1", b"data")
    for store in world.stores:
        store.objects["update/2"] = store.objects["update/1"]
    with pytest.raises(VerificationError, match="no good copy"):
        world.vault().read("update/2", 10)


def test_missing_object_is_not_found(world: World) -> None:
    with pytest.raises(NotFound):
        world.vault().read("update/1", 10)


def test_repeat_leaves_one_sealing(world: World) -> None:
    world.vault("agg-1").keep("update/1", b"data")
    before = world.copies("update/1")
    world.vault("agg-2").keep("update/1", b"data")
    assert world.copies("update/1") == before
    assert len(set(before)) == 1


@pytest.mark.parametrize("step", range(1, 5))
def test_keep_after_power_was_lost_at_any_step(world: World, step: int) -> None:
    try:
        world.vault("agg-1", dies_at=step).keep("update/1", b"data")
    except PowerLost:
        assert step <= 3
    world.vault("agg-2").keep("update/1", b"data")
    assert len(world.copies("update/1")) == 3
    assert len(set(world.copies("update/1"))) == 1


def test_one_store_down_is_enough_to_keep_and_read(world: World) -> None:
    world.stores[0].down = True
    world.vault().keep("update/1", b"data")
    assert world.vault().read("update/1", 10) == b"data"


def test_below_w_nothing_counts(world: World) -> None:
    world.stores[0].down = world.stores[1].down = True
    with pytest.raises(NotEnoughReplicas, match=r"1 of 3 stores hold it, 2 must"):
        world.vault().keep("update/1", b"data")


def test_silent_store_is_not_a_missing_object(world: World) -> None:
    world.stores[2].down = True
    with pytest.raises(StorageError, match="store is down") as failed:
        world.vault().read("update/1", 10)
    assert not isinstance(failed.value, NotFound)


@pytest.mark.parametrize("at", [0, 40, -1])
@pytest.mark.parametrize("index", range(3))
def test_bad_copy_is_passed_over(world: World, index: int, at: int) -> None:
    world.vault().keep("update/1", b"data")
    world.stores[index].flip("update/1", at)
    assert world.vault().read("update/1", 10) == b"data"
    world.vault().keep("update/1", b"data")


def test_empty_and_huge_copies_are_passed_over(world: World) -> None:
    world.vault().keep("update/1", b"data")
    world.stores[0].objects["update/1"] = b""
    world.stores[1].objects["update/1"] = bytes(2 << 20)
    assert world.vault().read("update/1", 10) == b"data"


def test_two_bad_copies_of_three_do_not_count_as_kept(world: World) -> None:
    world.vault().keep("update/1", b"data")
    for store in world.stores[:2]:
        store.flip("update/1")
    with pytest.raises(NotEnoughReplicas, match="holds other bytes"):
        world.vault().keep("update/1", b"data")


def test_all_copies_bad_is_said_so(world: World) -> None:
    world.vault().keep("update/1", b"data")
    for store in world.stores:
        store.flip("update/1")
    with pytest.raises(VerificationError, match="no good copy"):
        world.vault().read("update/1", 10)


def test_other_sealing_on_a_store_that_was_away_does_no_harm(world: World) -> None:
    world.stores[1].down = world.stores[2].down = True
    with pytest.raises(NotEnoughReplicas):
        world.vault("agg-1").keep("update/1", b"data")
    first, *others = world.stores
    first.down, others[0].down, others[1].down = True, False, False
    world.vault("agg-2").keep("update/1", b"data")
    first.down = False
    assert len(set(world.copies("update/1"))) == 2
    assert world.vault("agg-2").read("update/1", 10) == b"data"


def test_dropped_object_is_on_no_store(world: World) -> None:
    world.vault().keep("update/1", b"data")
    world.vault().drop("update/1")
    assert world.copies("update/1") == []


def test_drop_with_a_store_down_goes_on(world: World) -> None:
    world.vault().keep("update/1", b"data")
    world.stores[0].down = True
    world.vault().drop("update/1")
    assert len(world.copies("update/1")) == 1


# --- releases -------------------------------------------------------------------------


def test_release_is_restored_from_any_two_stores(world: World) -> None:
    head = _put(world.vault())
    data, release = _release()
    for lost in world.stores:
        lost.down = True
        assert world.vault("agg-2").read_release(head) == data
        assert world.vault("agg-2").verify_release(head) == release
        lost.down = False


def test_head_names_the_manifest_and_its_digest(world: World) -> None:
    vault = world.vault()
    head = _put(vault, term=7)
    manifest = vault.manifest(head)
    assert (head.run, head.round, head.sequence, head.term) == ("run", 1, 1, 7)
    assert head.manifest == manifest.digest()
    assert vault.digest(head).hex() == manifest.release == _release()[1].digest().hex()
    assert manifest.root == root(SITES.items()).hex()


def test_manifests_are_chained(world: World) -> None:
    first = _put(world.vault())
    second = _put(world.vault(), 2, previous=first)
    assert world.vault().manifest(second).prev == first.manifest.hex()
    assert second.sequence == first.sequence + 1


def test_repeat_adopts_the_manifest_that_is_there(world: World) -> None:
    first = _put(world.vault("agg-1"), term=1)
    again = _put(world.vault("agg-2"), term=2)
    assert again == replace(first, term=2)
    assert world.keys("manifest/") == ["manifest/run/00000001"]


def test_adopted_manifest_is_brought_to_every_store(world: World) -> None:
    world.stores[2].down = True
    head = _put(world.vault("agg-1"))
    world.stores[2].down = False
    _put(world.vault("agg-2"), term=2)
    name = world.vault().manifest(head).object
    assert len(world.copies(name)) == len(world.copies("manifest/run/00000001")) == 3


@pytest.mark.parametrize("step", range(1, 8))
def test_release_after_power_was_lost_at_any_step(world: World, step: int) -> None:
    # Six steps: the object on three stores, then the manifest on three.
    try:
        _put(world.vault("agg-1", dies_at=step))
    except PowerLost:
        assert step <= 6
    written = world.keys("manifest/")
    head = _put(world.vault("agg-2"), term=2)
    assert head.sequence == 1
    assert world.keys("manifest/") == ["manifest/run/00000001"]
    assert world.vault().manifest(head).writer == ("agg-1" if written else "agg-2")
    for pair in combinations(world.stores, 2):
        for store in world.stores:
            store.down = store not in pair
        assert world.vault().verify_release(head) == _release()[1]


@pytest.mark.parametrize("survivor", range(3))
@pytest.mark.parametrize("step", range(1, 7))
def test_release_after_power_and_a_store_were_lost(
    world: World, step: int, survivor: int
) -> None:
    with pytest.raises(PowerLost):
        _put(world.vault("agg-1", dies_at=step))
    world.stores[survivor].down = True
    head = _put(world.vault("agg-2"), term=2)
    assert world.vault("agg-1").verify_release(head) == _release()[1]


def test_object_is_on_w_stores_before_its_manifest_is_on_one(world: World) -> None:
    for step in range(1, 7):
        world.stores = [FlakyStore() for _ in range(3)]
        with pytest.raises(PowerLost):
            _put(world.vault(dies_at=step))
        if world.keys("manifest/"):
            (name,) = world.keys("obj/")
            assert len(world.copies(name)) >= 2


def _journal() -> tuple[State, FakeJournal]:
    state = State(FakeClock())
    return state, FakeJournal(state)


@pytest.mark.parametrize("step", range(1, STEPS + 2))
def test_rounds_under_power_cuts_make_one_chain(world: World, step: int) -> None:
    """A leader dies at `step` of two rounds; its successor finishes them."""
    state, journal = _journal()

    def lead(vault: Vault, term: int) -> None:
        state.term = term
        for number in (1, 2):
            head = journal.head("run")
            if head is None or head.round < number:
                journal.advance(
                    term, head, _put(vault, number, term=term, previous=head)
                )

    with contextlib.suppress(PowerLost):
        lead(world.vault("agg-1", dies_at=step), 1)
    lead(world.vault("agg-2"), 2)
    head = journal.head("run")
    assert head is not None
    vault = world.vault("agg-2")
    last = vault.manifest(head)
    committed = [e for e in journal.entries("run", 1) if e.step == "release"]
    assert len(committed) == 2
    first = replace(head, sequence=head.sequence - 1, manifest=bytes.fromhex(last.prev))
    assert vault.manifest(first).round == 1
    assert vault.manifest(first).prev == ""


def test_below_w_nothing_is_released(world: World) -> None:
    world.stores[0].down = world.stores[1].down = True
    with pytest.raises(StorageError):
        _put(world.vault())
    assert world.keys("manifest/") == []


def test_release_goes_on_with_one_store_down(world: World) -> None:
    world.stores[0].down = True
    head = _put(world.vault())
    assert world.vault().verify_release(head) == _release()[1]


def test_bad_copies_of_object_and_manifest_are_passed_over(world: World) -> None:
    head = _put(world.vault())
    name = world.vault().manifest(head).object
    world.stores[0].flip("manifest/run/00000001")
    world.stores[1].flip(name)
    assert world.vault("agg-2").verify_release(head) == _release()[1]
    assert _put(world.vault("agg-2"), term=1) == head


# --- what is not adopted --------------------------------------------------------------


def _rewrite(world: World, **changed: object) -> None:
    """Change fields of the first manifest everywhere, signed by an aggregator."""
    stored = world.copies("manifest/run/00000001")[0]
    manifest = replace(_read(stored), **changed)  # type: ignore[arg-type]
    for store in world.stores:
        store.objects["manifest/run/00000001"] = manifest.signed(SIGNING["agg-1"])


def _read(stored: bytes) -> Manifest:
    return read_manifest(stored, {n: k.public for n, k in SIGNING.items()})


@pytest.mark.parametrize(
    "changed",
    [
        {"root": "00" * 32},
        {"release": "00" * 32},
        {"prev": "00" * 32},
        {"round": 2},
        {"run": "other"},
        {"sequence": 2},
        {"object": "obj/missing"},
        {"size": 1},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_manifest_of_another_close_is_not_adopted(
    world: World, changed: dict[str, object]
) -> None:
    _put(world.vault("agg-1"))
    _rewrite(world, **changed)
    head = _put(world.vault("agg-2"), term=2)
    assert head.sequence == 2
    assert world.vault().manifest(head).writer == "agg-2"
    assert world.vault().verify_release(head) == _release()[1]


def test_manifest_of_a_stranger_is_not_adopted(world: World) -> None:
    _put(world.vault("agg-1"))
    manifest = _read(world.copies("manifest/run/00000001")[0])
    for store in world.stores:
        store.objects["manifest/run/00000001"] = manifest.signed(STRANGER)
    assert _put(world.vault("agg-2")).sequence == 2


def test_manifest_copied_to_another_number_is_not_adopted(world: World) -> None:
    _put(world.vault("agg-1"))
    for store in world.stores:
        stored = store.objects.pop("manifest/run/00000001")
        store.objects["manifest/run/00000007"] = stored
    head = _put(world.vault("agg-2"))
    assert head.sequence == 8
    assert world.vault().verify_release(head) == _release()[1]


def test_committed_manifest_copied_behind_the_head_is_not_adopted(world: World) -> None:
    first = _put(world.vault())
    for store in world.stores:
        stored = store.objects["manifest/run/00000001"]
        store.objects["manifest/run/00000002"] = stored
    second = _put(world.vault(), 2, previous=first)
    assert second.sequence == 3


def _lie(world: World, data: bytes) -> None:
    """Leave a manifest that names the release of `_release` and seals `data`."""
    release = _release()[1]
    boxes = {n: box.public for n, box in BOXES.items()}
    context = release.digest().hex().encode()
    stored = seal.to_bytes(seal.seal(data, boxes, context, bytes(39)))
    name = seal.object_name(stored)
    for store in world.stores:
        store.objects[name] = stored
    _rewrite(world, object=name, size=len(stored))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no envelope",
        _release(body=b"another sum")[0],
        _release(signer="stranger")[0],
        _release()[0][:-1],
    ],
    ids=["empty", "garbage", "other sum", "stranger", "cut"],
)
def test_manifest_whose_object_is_not_the_release_is_not_adopted(
    world: World, data: bytes
) -> None:
    _put(world.vault("agg-1"))
    _lie(world, data)
    head = _put(world.vault("agg-2"), term=2)
    assert head.sequence == 2
    assert world.vault().verify_release(head) == _release()[1]


def test_stray_names_among_the_manifests_are_left_alone(world: World) -> None:
    for store in world.stores:
        store.objects["manifest/run/notes.txt"] = b"hello"
    assert _put(world.vault()).sequence == 1


def test_orphans_only_raise_the_number(world: World) -> None:
    _put(world.vault(), body=b"a sum of another closed set")
    head = _put(world.vault("agg-2"), term=2)
    assert head.sequence == 2
    assert world.vault().verify_release(head) == _release()[1]


# --- drills ---------------------------------------------------------------------------


@pytest.mark.parametrize("field_name", ["release", "root"])
def test_drill_finds_a_manifest_that_names_another_release(
    world: World, field_name: str
) -> None:
    _put(world.vault())
    _rewrite(world, **{field_name: "00" * 32})
    manifest = _read(world.copies("manifest/run/00000001")[0])
    head = Head("run", 1, 1, manifest.digest(), 1)
    with pytest.raises(VerificationError):
        world.vault().verify_release(head)


def test_manifest_that_was_not_committed_is_refused(world: World) -> None:
    head = _put(world.vault())
    with pytest.raises(VerificationError, match="not the manifest that was committed"):
        world.vault().manifest(replace(head, manifest=bytes(32)))


@pytest.mark.parametrize("prefix", ["manifest/", "obj/"])
def test_bit_changed_on_every_store_is_found(world: World, prefix: str) -> None:
    head = _put(world.vault())
    (name,) = world.keys(prefix)
    places = range(0, len(world.copies(name)[0]), 37)
    assert len(places) > 10
    for at in places:
        for store in world.stores:
            store.flip(name, at)
        with pytest.raises(VerificationError, match="no good copy"):
            world.vault().verify_release(head)
        for store in world.stores:
            store.flip(name, at)
    assert world.vault().verify_release(head) == _release()[1]


# --- rosters --------------------------------------------------------------------------


def _rosters(version: int, revoked: str = "") -> Rosters:
    members = {
        name: Member(
            name, Role.AGGREGATOR, "org", key.public, BOXES[name].public, "", ""
        )
        for name, key in SIGNING.items()
    }
    return Rosters(Roster("0f" * 32, version, members, "", frozenset(revoked.split())))


def test_a_manifest_names_its_writers_roster(world: World) -> None:
    vault = world.vault(rosters=_rosters(3))
    assert vault.manifest(_put(vault)).roster == 3


def test_an_upgrade_goes_on_from_a_manifest_that_names_no_roster(
    world: World,
) -> None:
    before = _put(world.vault(code=("01", ())))
    vault = world.vault("agg-2", rosters=_rosters(3), code=("02", ("01",)))
    vault.require(before, b"p" * 32)
    after = _put(vault, 2, previous=before)
    formats = [vault.manifest(head).format for head in (before, after)]
    assert formats == [2, 3]
    assert vault.manifest(after).prev == before.manifest.hex()


def test_an_aggregator_goes_on_from_an_older_roster(world: World) -> None:
    head = _put(world.vault(rosters=_rosters(3)))
    world.vault("agg-2", rosters=_rosters(4)).require(head, b"p" * 32)


def test_an_aggregator_does_not_go_on_from_a_newer_roster(world: World) -> None:
    head = _put(world.vault(rosters=_rosters(4)))
    with pytest.raises(ConfigurationError, match="under roster 4, this kit has roste"):
        world.vault("agg-2", rosters=_rosters(3)).require(head, b"p" * 32)


def test_a_checkpoint_by_a_revoked_aggregator_is_refused(world: World) -> None:
    head = _put(world.vault(rosters=_rosters(4, "agg-1")))
    with pytest.raises(ConfigurationError, match="agg-1 is revoked since roster 4"):
        world.vault("agg-2", rosters=_rosters(4, "agg-1")).require(head, b"p" * 32)


def test_what_a_revoked_aggregator_left_uncommitted_is_passed_over(
    world: World,
) -> None:
    _put(world.vault(rosters=_rosters(3)))
    vault = world.vault("agg-2", rosters=_rosters(4, "agg-1"))
    head = _put(vault)
    assert (head.sequence, vault.manifest(head).writer) == (2, "agg-2")


def test_what_a_living_aggregator_left_uncommitted_is_adopted(world: World) -> None:
    _put(world.vault(rosters=_rosters(3)))
    vault = world.vault("agg-2", rosters=_rosters(4))
    head = _put(vault)
    assert (head.sequence, vault.manifest(head).writer) == (1, "agg-1")
    assert vault.manifest(head).roster == 3


def test_nothing_is_released_beside_a_manifest_under_a_newer_roster(
    world: World,
) -> None:
    _put(world.vault(rosters=_rosters(4)))
    with pytest.raises(ConfigurationError, match="under roster 4, this kit has roste"):
        _put(world.vault("agg-2", rosters=_rosters(3)))
    assert world.keys("manifest/") == ["manifest/run/00000001"]


def test_a_head_by_an_aggregator_that_joined_later_asks_for_its_roster(
    world: World,
) -> None:
    head = _put(world.vault(rosters=_rosters(4)))
    vault = world.vault("agg-2", rosters=_rosters(3))
    del vault._keys["agg-1"]
    with pytest.raises(
        ConfigurationError, match="'agg-1' under roster 4, this kit has roster 3: copy"
    ):
        vault.manifest(head)


def test_one_store_with_a_strangers_manifest_hides_no_good_copy(world: World) -> None:
    head = _put(world.vault(rosters=_rosters(3)))
    key = world.keys("manifest/")[0]
    stored = world.vault("agg-1").manifest(head)
    forged = replace(stored, writer="agg-9", roster=9).signed(STRANGER)
    world.stores[0].objects[key] = forged
    assert world.vault("agg-2", rosters=_rosters(3)).manifest(head) == stored
