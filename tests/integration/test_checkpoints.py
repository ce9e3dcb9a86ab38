"""Checkpoints and backups by the commands an operator types, on folders of a disk."""

import json
import shutil
import tarfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from fedsecure import registry
from fedsecure.assembly.aggregator import read_config
from fedsecure.assembly.checkpoints import open_desk
from fedsecure.assembly.diary import export
from fedsecure.checkpoint.replicate import Replicas
from fedsecure.checkpoint.rosters import Rosters
from fedsecure.checkpoint.vault import Vault
from fedsecure.cli import app
from fedsecure.clock import SystemClock
from fedsecure.config import AggregatorConfig
from fedsecure.disk import SystemDisk
from fedsecure.envelope import Kind, Scope, canonical, parse, sign, verify
from fedsecure.errors import FedsecureError
from fedsecure.keys import VerifyKey
from fedsecure.ledger import Ledger
from fedsecure.metadata import Engine, JournalEntry, Step
from fedsecure.parts import join, listing
from fedsecure.provision.kits import revoke
from fedsecure.release import plan_digest, release_of, root
from fedsecure.update import JSON, RoundId
from tests.fakes.federation import Federation
from tests.fakes.kits import kit, make_kits
from tests.fakes.servers import etcd, no_etcd, no_postgresql, postgresql

pytestmark = pytest.mark.integration

RUN = "run-1"
ROUNDS = 3


class Place:
    """A machine: kits, three stores and an engine, with a complete run in them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.kits = make_kits(folder)
        self.path = self.kits / "agg-1"
        plan = dict(Federation(sites=2, rounds=ROUNDS).plan)
        plan["federation"] = kit(self.kits, "agg-1").roster.federation
        made = AggregatorConfig.model_validate(
            {
                "plan": plan,
                "deadline": 5.0,
                "lease": str(folder / "lease"),
                "ttl": 3.0,
                "stores": [str(self.store(i)) for i in range(3)],
                "quorum": 2,
                "keep": {"last": 0, "days": 0.0},
            }
        )
        config = json.dumps(made.model_dump(mode="json"))
        (self.path / "aggregator.json").write_text(config)

    def change(self, **fields: JSON) -> None:
        """Write other values into ``aggregator.json``."""
        path = self.path / "aggregator.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))

    def store(self, number: int) -> Path:
        return self.folder / "stores" / str(number)

    @property
    def engine(self) -> Engine:
        settings = {"path": str(self.folder / "lease")}
        engine: Engine = registry.load("metadata", "embedded").create(settings)
        return engine

    def write_run(self) -> None:
        """Leave what a leader leaves of a complete run, with its own tools."""
        me, site = kit(self.kits, "agg-1"), kit(self.kits, "site-1")
        local = registry.load("stores", "local")
        stores = [
            (str(self.store(i)), local.create({"path": str(self.store(i))}))
            for i in range(3)
        ]
        replicas = Replicas(stores, 2)
        replicas.probe(me.roster.federation)
        vault = Vault(
            replicas,
            me.name,
            me.signing,
            me.box,
            {me.name: me.box.public},
            {me.name: me.signing.public},
            SystemClock(),
            rosters=Rosters.of(me),
        )
        engine = self.engine
        lease = engine.leases.acquire(me.name, "", 60.0)
        assert lease is not None
        ours = plan_digest(read_config(me).plan)
        pieces = [("layout", b"{}"), ("initial", b"8 bytes.")]
        scope = Scope(RoundId(RUN, 0), site.name, b"k" * 32, b"", ours)
        header: dict[str, JSON] = {"term": 1, "parts": listing(pieces)}
        begun = sign(
            Kind.BEGIN, scope, header, join(pieces), signer=site.name, key=site.signing
        )
        digest = begun_digest(begun.to_bytes(), site.signing.public.raw)
        vault.keep(f"begin/{digest}", begun.to_bytes())
        detail: dict[str, JSON] = {
            "object": f"begin/{digest}",
            "custodian": site.name,
            "key_id": (b"k" * 32).hex(),
        }
        entry = JournalEntry(RUN, 0, Step.BEGIN, "", "b", canonical(detail))
        engine.journal.append(lease.term, [entry])
        head, participants = None, {site.name: b"1" * 32}
        for number in range(1, ROUNDS + 1):
            release = release_of(RoundId(RUN, number), number - 1, participants, b"sum")
            scope = Scope(release.round, "*", b"k" * 32, b"l" * 32, ours)
            made = sign(
                Kind.RELEASE,
                scope,
                {**release.header(), "term": lease.term},
                b"sum",
                signer=me.name,
                key=me.signing,
            )
            closed = root(participants.items())
            new = vault.release(made.to_bytes(), release, closed, lease.term, head)
            engine.journal.advance(lease.term, head, new)
            head = new
        over = JournalEntry(RUN, ROUNDS, Step.PUBLISH, "", "p", canonical({}))
        engine.journal.append(lease.term, [over])
        engine.leases.release(lease)
        ledger = Ledger.open(
            me.state / "ledger.jsonl", me.name, me.signing, SystemDisk(), SystemClock()
        )
        ledger.append("lease.acquired", me.name, term=lease.term)
        ledger.close()


def begun_digest(data: bytes, key: bytes) -> str:
    return verify(
        parse(data, 1 << 20), VerifyKey(key), kinds=(Kind.BEGIN,)
    ).digest.hex()


@pytest.fixture
def place(tmp_path: Path) -> Place:
    made = Place(tmp_path)
    made.write_run()
    return made


def typed(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def objects(store: Path) -> list[Path]:
    return sorted(p for p in store.rglob("*") if p.is_file())


def test_list_prints_each_release_and_its_copies(place: Place) -> None:
    said = typed("checkpoint", "list", place.path)
    assert said.exit_code == 0, said.output
    assert said.output.count("3 of 3") == ROUNDS


def test_bad_copies_are_named_and_restored_and_nothing_is_left_bad(
    place: Place,
) -> None:
    assert typed("checkpoint", "verify", place.path).exit_code == 0
    shutil.rmtree(place.store(0))
    flipped = next(p for p in objects(place.store(1)) if "obj" in p.parts)
    data = bytearray(flipped.read_bytes())
    data[-1] ^= 1
    flipped.write_bytes(data)
    said = typed("checkpoint", "verify", place.path)
    assert said.exit_code == 1
    assert "missing" in said.output
    assert "changed" in said.output
    restored = typed("checkpoint", "restore", place.path)
    assert restored.exit_code == 0, restored.output
    again = typed("checkpoint", "verify", place.path)
    assert again.exit_code == 0, again.output


def test_a_lost_engine_is_made_again(place: Place) -> None:
    head = place.engine.journal.head(RUN)
    shutil.rmtree(place.folder / "lease")
    said = typed("checkpoint", "verify", place.path)
    assert said.exit_code == 1
    assert "restore" in said.output
    restored = typed("checkpoint", "restore", "--engine", place.path)
    assert restored.exit_code == 0, restored.output
    found = place.engine.journal.head(RUN)
    assert head is not None
    assert found is not None
    assert (found.round, found.manifest) == (head.round, head.manifest)
    assert found.term > head.term
    again = typed("checkpoint", "verify", place.path)
    assert again.exit_code == 0, again.output


@pytest.fixture(params=["postgresql", "etcd"])
def server(request: pytest.FixtureRequest) -> Iterator[dict[str, JSON]]:
    """Return the settings of an engine on a server of the test's own, empty."""
    reason = no_postgresql() if request.param == "postgresql" else no_etcd()
    if reason:
        pytest.skip(reason)
    plain: dict[str, JSON] = {"name": request.param, "timeout": 10.0, "ttl": 30.0}
    if request.param == "postgresql":
        with postgresql() as database:
            yield {**plain, "url": database.url}
    else:
        with etcd() as cluster:
            yield {**plain, "endpoints": list(cluster.endpoints)}


def test_a_lost_engine_is_made_again_on_a_server(
    place: Place, server: dict[str, JSON]
) -> None:
    head = place.engine.journal.head(RUN)
    place.change(engine=server)
    said = typed("checkpoint", "verify", place.path)
    assert said.exit_code == 1, said.output
    restored = typed("checkpoint", "restore", "--engine", place.path)
    assert restored.exit_code == 0, restored.output
    found = open_desk(place.path).engine.journal.head(RUN)
    assert head is not None
    assert found is not None
    assert (found.round, found.manifest) == (head.round, head.manifest)
    assert found.term > head.term
    again = typed("checkpoint", "verify", place.path)
    assert again.exit_code == 0, again.output
    typed("checkpoint", "restore", "--engine", place.path)
    assert open_desk(place.path).engine.journal.head(RUN) == found


def test_a_lost_engine_is_not_made_again_under_another_configuration(
    place: Place,
) -> None:
    shutil.rmtree(place.folder / "lease")
    plan = dict(read_config(kit(place.kits, "agg-1")).plan)
    place.change(plan={**plan, "rounds": ROUNDS + 1})
    said = typed("checkpoint", "restore", "--engine", place.path)
    assert said.exit_code != 0
    assert "configuration (plan)" in " ".join(
        str(said.exception or said.output).split()
    )
    assert place.engine.journal.head(RUN) is None


def test_retention_only_shows_until_it_is_told(place: Place) -> None:
    before = objects(place.store(0))
    said = typed("checkpoint", "gc", place.path)
    assert said.exit_code == 0, said.output
    assert "--apply" in said.output
    assert objects(place.store(0)) == before
    assert typed("checkpoint", "gc", "--apply", place.path).exit_code == 0
    left = {p.name for i in range(3) for p in objects(place.store(i))}
    assert left == {"federation"}


def test_an_export_is_a_store_on_another_machine(place: Place) -> None:
    out = place.folder / "run.tar"
    said = typed("checkpoint", "export", place.path, out)
    assert said.exit_code == 0, said.output
    for number in range(3):
        shutil.rmtree(place.store(number))
    with tarfile.open(out) as tar:
        tar.extractall(place.store(2), filter="data")
    assert typed("checkpoint", "restore", place.path).exit_code == 0
    again = typed("checkpoint", "verify", place.path)
    assert again.exit_code == 0, again.output


def test_a_backup_is_an_aggregator_on_another_machine(place: Place) -> None:
    secret, out = place.folder / "secret", place.folder / "backup"
    secret.write_text("correct horse battery staple\n")
    secret.chmod(0o600)
    option = ("--passphrase-file", secret)
    made = typed("backup", "create", place.path, out, *option)
    assert made.exit_code == 0, made.output
    checked = typed("backup", "verify", place.path, out, *option)
    assert checked.exit_code == 0, checked.output
    shutil.rmtree(place.path)
    shutil.rmtree(place.folder / "lease")
    back = typed("backup", "restore", place.path, out, *option)
    assert back.exit_code == 0, back.output
    assert "restore --engine" in back.output
    assert read_config(kit(place.kits, "agg-1")).plan["run"] == RUN
    restored = typed("checkpoint", "restore", "--engine", place.path)
    assert restored.exit_code == 0, restored.output
    assert [m.round for m in open_desk(place.path).inventory.chains[RUN].links] == [
        1,
        2,
        3,
    ]


def test_a_backup_holds_no_round_s_key(place: Place) -> None:
    lease = place.engine.leases.acquire("agg-1", "", 60.0)
    assert lease is not None
    key = JournalEntry(RUN, ROUNDS + 1, Step.KEY, "", "k", b'{"wraps":{}}')
    place.engine.journal.append(lease.term, [key])
    (diary,) = export(kit(place.kits, "agg-1")).values()
    rows = [json.loads(line)["step"] for line in diary.splitlines()]
    assert "release" in rows
    assert "key" not in rows


def test_a_passphrase_others_can_read_is_refused(place: Place) -> None:
    secret = place.folder / "secret"
    secret.write_text("x\n")
    secret.chmod(0o644)
    out = place.folder / "backup"
    said = typed("backup", "create", place.path, out, "--passphrase-file", secret)
    assert said.exit_code != 0
    assert not out.exists()


def test_a_restored_site_is_told_that_its_ledger_may_be_refused(place: Place) -> None:
    site, out = place.kits / "site-1", place.folder / "backup"
    assert typed("backup", "create", site, out).exit_code == 0
    said = typed("backup", "restore", site, out)
    assert said.exit_code == 0, said.output
    assert "its ledger ends at line" in said.output


# --- rosters --------------------------------------------------------------------------


@pytest.fixture
def newer(tmp_path: Path) -> Place:
    """Return a run whose rounds were released after a site was revoked."""
    made = Place(tmp_path)
    revoke("site-2", made.kits, datetime.now(UTC))
    install(made)
    made.write_run()
    return made


def install(place: Place) -> None:
    """Do what an operator is told: copy the newest roster into an aggregator's kit."""
    (place.path / "roster.d").mkdir(exist_ok=True)
    shutil.copy(place.kits / "roster.json", place.path / "roster.d" / "2.json")


def uninstall(place: Place) -> None:
    """Make the kit one that was never given the newer roster."""
    shutil.rmtree(place.path / "roster.d")


def refusal(*words: object) -> str:
    said = typed(*words)
    assert said.exit_code != 0, said.output
    assert isinstance(said.exception, FedsecureError), said.output
    return str(said.exception)


@pytest.mark.parametrize(
    "command",
    [
        ("verify",),
        ("restore", "--engine"),
        ("gc", "--apply"),
        ("export",),
    ],
    ids=" ".join,
)
def test_a_kit_with_an_older_roster_is_refused_until_it_has_the_newer_one(
    newer: Place, command: tuple[str, ...]
) -> None:
    uninstall(newer)
    if "--engine" in command:
        shutil.rmtree(newer.folder / "lease")
    before = [objects(newer.store(i)) for i in range(3)]
    more = (newer.folder / "out.tar",) if command == ("export",) else ()
    words = ("checkpoint", *command, newer.path, *more)
    assert "under roster 2, this kit has roster 1: copy roster 2" in refusal(*words)
    assert [objects(newer.store(i)) for i in range(3)] == before
    install(newer)
    said = typed(*words)
    assert said.exit_code == 0, said.output


def test_a_kit_with_a_newer_roster_restores_what_was_made_before(place: Place) -> None:
    revoke("site-2", place.kits, datetime.now(UTC))
    install(place)
    shutil.rmtree(place.folder / "lease")
    restored = typed("checkpoint", "restore", "--engine", place.path)
    assert restored.exit_code == 0, restored.output
    verified = typed("checkpoint", "verify", place.path)
    assert verified.exit_code == 0, verified.output


def test_another_roster_of_the_same_number_is_refused_and_shown(newer: Place) -> None:
    uninstall(newer)
    office = newer.folder / "other"
    shutil.copytree(newer.kits, office)
    first = (newer.path / "roster.json").read_bytes()
    (office / "roster.json").write_bytes(first)
    revoke("site-1", office, datetime.now(UTC))
    (newer.path / "roster.d").mkdir()
    shutil.copy(office / "roster.json", newer.path / "roster.d" / "2.json")
    shown = typed("checkpoint", "verify", newer.path)
    assert shown.exit_code == 1
    assert "3 releases were not made as they say" in " ".join(shown.output.split())
    out = newer.folder / "out.tar"
    for words in (("export", newer.path, out), ("restore", "--engine", newer.path)):
        shutil.rmtree(newer.folder / "lease", ignore_errors=True)
        assert "two rosters were made under one number" in refusal("checkpoint", *words)
    assert not out.exists()


@pytest.mark.parametrize("marked", [True, False])
def test_stores_of_another_federation_are_refused(
    place: Place, tmp_path: Path, *, marked: bool
) -> None:
    (tmp_path / "foreign").mkdir()
    foreign = Place(tmp_path / "foreign")
    foreign.change(stores=[str(place.store(i)) for i in range(3)])
    for number in range(3):
        if not marked:  # as an export is, unpacked
            (place.store(number) / "federation").unlink()
    theirs = kit(place.kits, "agg-1").roster.federation[:16]
    said = refusal("checkpoint", "restore", "--engine", foreign.path)
    assert f"of federation {theirs}" in said.replace("'", "")
    assert foreign.engine.journal.head(RUN) is None


def test_a_backup_older_than_the_roster_of_a_round_waits_for_that_roster(
    tmp_path: Path,
) -> None:
    place, out = Place(tmp_path), tmp_path / "backup"
    assert typed("backup", "create", place.path, out).exit_code == 0
    revoke("site-2", place.kits, datetime.now(UTC))
    install(place)
    place.write_run()
    uninstall(place)
    lost = place.path / "aggregator.json"
    lost.unlink()
    said = refusal("backup", "restore", place.path, out)
    assert "nothing was written: run run-1: round 1 was released under roster 2" in said
    assert "this kit has roster 1: copy roster 2" in said
    assert not lost.exists()
    install(place)
    back = typed("backup", "restore", place.path, out)
    assert back.exit_code == 0, back.output
    assert lost.exists()
    assert kit(place.kits, "agg-1").roster.version == 2
