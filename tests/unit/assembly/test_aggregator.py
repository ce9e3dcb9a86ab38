"""An aggregator's kit becomes a strategy; a process that could see does not start."""

import json
import os
import subprocess
import sys
import types
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from fedsecure import registry
from fedsecure.assembly.aggregator import (
    BLIND,
    Surroundings,
    build_strategy,
    from_run_config,
    read_config,
    read_terms,
    refuse_sight,
)
from fedsecure.assembly.places import open_stores
from fedsecure.config import AggregatorConfig
from fedsecure.errors import ConfigurationError, KeyExposed, KitError
from fedsecure.flower.strategy import SecureFedAvg
from fedsecure.monitor.observer import read_lines
from fedsecure.monitor.pulse import PULSE
from fedsecure.trainer import JSON
from tests.fakes.federation import Federation
from tests.fakes.kits import kit, make_kits
from tests.fakes.store import FlakyStore

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def kits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_kits(tmp_path_factory.mktemp("kits"))


@pytest.fixture
def plan(kits: Path) -> dict[str, JSON]:
    made = dict(Federation(sites=2).plan)
    made["federation"] = kit(kits, "agg-1").roster.federation
    return made


def config(
    plan: Mapping[str, JSON], folder: Path, **changes: object
) -> AggregatorConfig:
    values: dict[str, object] = {
        "plan": dict(plan),
        "deadline": 5.0,
        "lease": str(folder / "lease"),
        "ttl": 3.0,
        "stores": [str(folder / "stores" / str(i)) for i in range(3)],
        "quorum": 2,
        **changes,
    }
    return AggregatorConfig.model_validate(values)


@pytest.fixture
def written(kits: Path, plan: Mapping[str, JSON], tmp_path: Path) -> Iterator[Path]:
    """Write ``aggregator.json`` beside a kit, as a backend does; yield the kit."""
    path = kits / "agg-1" / "aggregator.json"
    made = config(plan, tmp_path)
    path.write_text(json.dumps(made.model_dump(mode="json")))
    yield path.parent
    path.unlink()


# --- terms ----------------------------------------------------------------------------


def test_terms_are_the_plan_s_public_fields(
    kits: Path, plan: Mapping[str, JSON], tmp_path: Path
) -> None:
    terms = read_terms(config(plan, tmp_path), kit(kits, "agg-1").roster)
    assert (terms.run, terms.rounds, terms.min_contributors) == ("run-1", 2, 2)
    assert terms.sites == ("site-1", "site-2")


def test_more_sites_than_kits_are_refused(
    kits: Path, plan: dict[str, JSON], tmp_path: Path
) -> None:
    plan["sites"] = ["site-1", "site-2", "site-9"]
    with pytest.raises(ConfigurationError, match="site-9, which have no kit"):
        read_terms(config(plan, tmp_path), kit(kits, "agg-1").roster)


def test_plan_of_another_federation_is_refused(
    kits: Path, plan: dict[str, JSON], tmp_path: Path
) -> None:
    plan["federation"] = "f" * 64
    with pytest.raises(ConfigurationError, match="of another federation"):
        read_terms(config(plan, tmp_path), kit(kits, "agg-1").roster)


@pytest.mark.parametrize("name", ["run", "rounds", "sites", "encryption"])
def test_plan_without_a_field_is_refused(
    kits: Path, plan: dict[str, JSON], tmp_path: Path, name: str
) -> None:
    del plan[name]
    with pytest.raises(ConfigurationError, match=f"no field '{name}'"):
        read_terms(config(plan, tmp_path), kit(kits, "agg-1").roster)


# --- building -------------------------------------------------------------------------


def surroundings(tmp_path: Path, stores: list[FlakyStore]) -> Surroundings:
    engine = registry.load("metadata", "embedded").create({"path": tmp_path / "lease"})
    named = tuple((f"store-{i}", store) for i, store in enumerate(stores))
    return Surroundings(engine, named, tmp_path / "state", lambda _: dict)


def test_site_s_kit_builds_no_strategy(
    kits: Path, plan: Mapping[str, JSON], tmp_path: Path
) -> None:
    around = surroundings(tmp_path, [FlakyStore() for _ in range(3)])
    with pytest.raises(KitError, match="kit of site site-1"):
        build_strategy(kit(kits, "site-1"), config(plan, tmp_path), around)
    assert not (tmp_path / "state").exists()


def test_store_that_is_down_stops_the_start(
    kits: Path, plan: Mapping[str, JSON], tmp_path: Path
) -> None:
    stores = [FlakyStore() for _ in range(3)]
    stores[1].down = True
    with pytest.raises(ConfigurationError, match="1 of 3 stores are not usable"):
        build_strategy(
            kit(kits, "agg-1"), config(plan, tmp_path), surroundings(tmp_path, stores)
        )


# --- health ---------------------------------------------------------------------------


@pytest.fixture
def built(
    kits: Path, plan: Mapping[str, JSON], tmp_path: Path
) -> Iterator[SecureFedAvg]:
    around = surroundings(tmp_path, [FlakyStore() for _ in range(3)])
    state = kit(kits, "agg-1").state
    state.mkdir(exist_ok=True)
    yield build_strategy(kit(kits, "agg-1"), config(plan, tmp_path), around)
    (state / PULSE).unlink(missing_ok=True)


def test_campaign_looks_at_the_vitals_of_its_strategy(built: SecureFedAvg) -> None:
    assert built._campaign._ailment == built._vitals.ailment


def test_round_that_stands_still_takes_the_pulse_away(
    kits: Path, built: SecureFedAvg
) -> None:
    pulse = kit(kits, "agg-1").state / PULSE
    built._vitals.stuck = True
    built._campaign._beat()
    assert not pulse.exists()
    built._vitals.stuck = False
    built._campaign._beat()
    assert pulse.exists()


def test_ailment_and_its_end_are_events(built: SecureFedAvg, tmp_path: Path) -> None:
    built._vitals._tell("its SuperLink is silent")
    built._vitals._tell("")
    lines = read_lines(tmp_path / "state" / "events.jsonl")
    said = [(line["event"], line["reason"]) for line in lines]
    assert said == [("unwell", "its SuperLink is silent"), ("well", "")]


def test_full_disk_hides_an_ailment_and_ends_no_campaign(
    built: SecureFedAvg, tmp_path: Path
) -> None:
    place = tmp_path / "state" / "events.jsonl"
    place.unlink(missing_ok=True)
    place.mkdir()  # as a disk that takes nothing
    built._vitals._tell("its SuperLink is silent")
    assert built._campaign.holder == ""


def test_replicas_on_one_device_are_refused_if_asked(
    plan: Mapping[str, JSON], tmp_path: Path
) -> None:
    open_stores(config(plan, tmp_path))
    with pytest.raises(ConfigurationError, match="are on one device"):
        open_stores(config(plan, tmp_path, require_distinct_devices=True))


@pytest.mark.parametrize("value", [{}, {"kit": ""}, {"kit": "relative/kit"}])
def test_run_config_without_a_kit_is_refused(value: Mapping[str, object]) -> None:
    with pytest.raises(ConfigurationError, match="must be a kit's folder"):
        from_run_config(value)


def test_kit_without_its_file_says_who_writes_it(kits: Path) -> None:
    with pytest.raises(ConfigurationError, match="it says which run to serve"):
        read_config(kit(kits, "agg-2"))


@pytest.mark.parametrize("text", ["{", "[" * 5000, '{"plan": 1}'])
def test_malformed_file_is_refused(kits: Path, text: str) -> None:
    path = kits / "agg-2" / "aggregator.json"
    path.write_text(text)
    try:
        with pytest.raises(ConfigurationError):
            read_config(kit(kits, "agg-2"))
    finally:
        path.unlink()


# --- blindness ------------------------------------------------------------------------


@pytest.mark.parametrize("name", BLIND)
def test_process_that_could_open_an_update_stops(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for other in BLIND:
        monkeypatch.delitem(sys.modules, other, raising=False)
    refuse_sight()
    monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    with pytest.raises(KeyExposed, match=name):
        refuse_sight()


def test_secret_of_a_site_in_an_aggregator_s_kit_stops_it(kits: Path) -> None:
    stray = kits / "agg-2" / "steward.key"
    stray.write_bytes(bytes(32))
    try:
        with pytest.raises(KeyExposed):
            kit(kits, "agg-2")
    finally:
        stray.unlink()


def test_aggregator_s_process_loads_nothing_that_sees(written: Path) -> None:
    """A fresh Python builds the strategy as server/app.py does, and is asked."""
    code = (
        "import sys\n"
        f"sys.path.insert(0, {str(ROOT / 'server')!r})\n"
        "import app\n"
        "from fedsecure.assembly.aggregator import from_run_config\n"
        f"strategy = from_run_config({{'kit': {str(written)!r}}})\n"
        "assert strategy._terms.run == 'run-1'\n"
        "seen = ('fedsecure.he', 'fedsecure.custody', 'fedsecure.encoding',\n"
        "        'fedsecure.privacy', 'fedsecure.client_round', 'tenseal', 'torch',\n"
        "        'opacus', 'dp_accounting')\n"
        "print([name for name in seen if name in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().splitlines()[-1] == "[]"
