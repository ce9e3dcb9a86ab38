"""What the door of the configuration lets through, and what it says otherwise."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from fedsecure import registry
from fedsecure.config import NodeConfig, RunConfig, parse_section
from fedsecure.errors import ConfigurationError

CONF = Path(__file__).parents[2] / "conf"
GROUPS = sorted(folder.name for folder in CONF.iterdir() if folder.is_dir())
OPTIONS = [
    f"{group}={file.stem}"
    for group in GROUPS
    for file in sorted((CONF / group).glob("*.yaml"))
]
NEEDS = {
    "data=csv": ["data.path=rows.csv", "data.target=y", "privacy.divisor=50"],
    "data=object": ["data.object=mine:rows", "privacy.divisor=50"],
    "encryption=ckks": ["privacy=none"],
    "privacy=user_distributed": [
        "data=csv",
        "data.path=rows.csv",
        "data.target=y",
        "data.user_column=who",
    ],
    "model=object": ["model.object=mine:model"],
    "lease=postgresql": ["lease.url=postgresql://fed@db/fed"],
    "lease=etcd": ["lease.endpoints=[https://e1:2379]"],
    "store=s3": [
        "store.replicas=1",
        "store.quorum=1",
        "store.buckets=[{url: https://s3.example, bucket: fed}]",
    ],
}
PRIVATE = {"mode": "example_local", "target_epsilon": 3.0, "divisor": 50}


def composed(*overrides: str) -> dict[str, Any]:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = OmegaConf.to_container(compose("config", list(overrides)))
    assert isinstance(config, dict)
    return {str(key): value for key, value in config.items()}


def refusal(values: Mapping[str, Any]) -> str:
    with pytest.raises(ConfigurationError) as caught:
        RunConfig.parse(values)
    return str(caught.value)


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_of_every_group_composes_and_passes_the_door(option: str) -> None:
    RunConfig.parse(composed(option, *NEEDS.get(option, [])))


def test_hydra_defaults_and_models_defaults_are_the_same_without_privacy() -> None:
    assert RunConfig.parse(composed("privacy=none")) == RunConfig()


def test_a_run_shares_noise_unless_it_says_otherwise() -> None:
    privacy = RunConfig.parse(composed()).privacy
    assert (privacy.mode, privacy.max_colluders) == ("example_distributed", 1)


def test_the_quick_experiment_has_neither_privacy_nor_encryption() -> None:
    quick = RunConfig.parse(composed("experiment=digits_quick"))
    assert (quick.privacy.mode, quick.encryption.scheme) == ("none", "insecure_plain")


@pytest.mark.parametrize(
    ("data", "rate", "divisor"), [("digits", 1.0, 1400), ("breast_cancer", 0.2, 90)]
)
def test_public_data_brings_the_expected_batch_of_all_sites(
    data: str, rate: float, divisor: float
) -> None:
    words = (f"data={data}", f"privacy.sample_rate={rate}")
    assert RunConfig.parse(composed(*words)).divisor == pytest.approx(divisor)


def test_a_divisor_that_was_set_is_taken() -> None:
    assert RunConfig.parse(composed("privacy.divisor=70")).divisor == 70


@pytest.mark.parametrize(
    "words",
    [
        ("data=csv", "data.path=t.csv", "data.target=y"),
        ("data=object", "data.object=mine:rows"),
    ],
)
def test_rows_of_ones_own_need_a_public_divisor(words: tuple[str, ...]) -> None:
    said = refusal(composed(*words))
    assert said.startswith("privacy.divisor is missing and data=")
    assert "public expected batch of all sites together" in said


@pytest.mark.parametrize(
    ("group", "socket"),
    [
        ("encryption", "he"),
        ("store", "stores"),
        ("backend", "backends"),
        ("lease", "metadata"),
    ],
)
def test_every_plug_on_disk_has_its_yaml(group: str, socket: str) -> None:
    assert set(registry.names(socket)) <= {p.stem for p in (CONF / group).iterdir()}


def test_the_demo_kills_its_leader_under_privacy_and_encryption() -> None:
    demo = RunConfig.parse(composed("experiment=demo"))
    assert demo.backend.kill_leader_in_round is not None
    assert demo.privacy.mode == "example_distributed"
    assert demo.privacy.max_colluders == 1
    assert demo.encryption.scheme == "bfv"


def test_a_number_on_the_command_line_names_a_profile() -> None:
    config = RunConfig.parse(composed("encryption.profile=12"))
    assert config.encryption.profile == "12"


def test_whole_numbers_are_taken_where_fractions_are_due() -> None:
    assert RunConfig.parse({"privacy": {"clip_norm": 2}}).privacy.clip_norm == 2.0


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"federation": {"rounds": 0}}, "federation.rounds=0, must be greater than"),
        ({"federation": {"rounds": "8"}}, "federation.rounds='8', must be a valid int"),
        ({"federation": {"sites": True}}, "federation.sites=True, must be a valid int"),
        ({"federation": {"sites": 94}}, "federation.sites=94, must be less than"),
        ({"privacy": {"clip_norm": math.nan}}, "privacy.clip_norm=NaN, must be a fin"),
        ({"privacy": {"clip_norm": 0.0}}, "privacy.clip_norm=0.0, must be greater"),
        ({"privacy": {"delta": 1.0}}, "privacy.delta=1.0, must be less than 1"),
        ({"privacy": {"delta": 0.0}}, "privacy.delta=0.0, must be greater than 0"),
        ({"privacy": {"target_epsilon": -1.0}}, "target_epsilon=-1.0, must be greater"),
        ({"privacy": {"sample_rate": 1.5}}, "privacy.sample_rate=1.5, must be less"),
        ({"encryption": {"scheme": "rsa"}}, "encryption.scheme='rsa', must be 'bfv'"),
        ({"data": {"path": 3}}, "data.path=3, must be a valid string"),
        ({"data": 3}, "data=3, must be a section of keys; known keys: name, "),
        ({"seed": -1}, "seed=-1, must be greater than or equal to 0"),
    ],
)
def test_a_bad_value_is_named_with_its_key_and_its_bound(
    values: Mapping[str, Any], said: str
) -> None:
    assert said in refusal(values)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"store": {"quorum": 4}}, "store.quorum=4, at most store.replicas=3"),
        ({"store": {"paths": ["a"]}}, "store.paths names 1 folders, store.replicas=3"),
        ({"federation": {"min_contributors": 4}}, "min_contributors=4, at most the 3"),
        ({"encryption": {"max_contributors": 2}}, "max_contributors=2, at least the 3"),
        ({"data": {"name": "csv"}}, "data=csv needs data.path and data.target"),
        ({"data": {"name": "object"}}, "data=object needs data.object="),
        ({"data": {"path": ["a", "b"]}}, "data.path names 2 files, one for each"),
        ({"model": {"name": "object"}}, "model=object needs model.object="),
        ({"privacy": PRIVATE | {"noise_multiplier": 1.0}}, "exactly one of"),
        ({"privacy": PRIVATE | {"target_epsilon": None}}, "exactly one of"),
        ({"privacy": PRIVATE | {"divisor": None}}, "privacy.divisor is missing"),
        ({"privacy": PRIVATE, "federation": {"max_rows": 9}}, "must be 0 or unset"),
        ({"data": {"user_column": "pid"}}, "data.user_column does nothing with data=d"),
        (
            {
                "privacy": PRIVATE | {"mode": "user_distributed", "steps_per_round": 1},
            },
            "privacy.mode=user_distributed needs data.user_column",
        ),
        (
            {"backend": {"name": "deployment"}, "store": {"name": "memory"}},
            "backend=deployment needs store=local",
        ),
        (
            {"backend": {"name": "deployment", "kill_leader_in_round": 9}},
            "kill_leader_in_round=9, at most the 8 rounds",
        ),
        ({"backend": {"kill_leader_in_round": 2}}, "needs backend=deployment"),
        (
            {
                "backend": {"name": "deployment", "kill_leader_in_round": 2},
                "federation": {"aggregators": 1},
            },
            "nobody would take over",
        ),
    ],
)
def test_values_that_contradict_each_other_are_refused(
    values: Mapping[str, Any], said: str
) -> None:
    assert said in refusal(values)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"federation": {"round": 3}}, "'federation.round'; did you mean 'rounds'?"),
        ({"privcy": {}}, "unknown key 'privcy'; did you mean 'privacy'?"),
        ({"lease": {"zzz": 1}}, "unknown key 'lease.zzz'; known keys: name, ttl"),
    ],
)
def test_an_unknown_key_is_refused_with_the_likely_one(
    values: Mapping[str, Any], said: str
) -> None:
    assert said in refusal(values)


def test_a_refusal_is_one_line() -> None:
    assert "\n" not in refusal({"federation": {"rounds": 0, "sites": 0}})


def test_a_daemons_file_is_named_in_its_refusal() -> None:
    with pytest.raises(ConfigurationError, match=r"node\.json: unknown key 'indx'"):
        parse_section(NodeConfig, {"data": {}, "indx": 1}, Path("node.json"))


def test_the_quorum_of_a_round_is_all_sites_unless_said_otherwise() -> None:
    assert RunConfig.parse({"federation": {"sites": 5}}).federation.quorum == 5


@given(rounds=st.integers(1, 10**6), ttl=st.floats(0.3, 60), seed=st.integers(0, 99))
def test_a_document_is_read_back_as_the_same_configuration(
    rounds: int, ttl: float, seed: int
) -> None:
    config = RunConfig.parse(
        {"federation": {"rounds": rounds}, "lease": {"ttl": ttl}, "seed": seed}
    )
    again = RunConfig.parse(config.document())
    assert again == config
    assert again.digest() == config.digest()


def test_another_value_makes_another_digest() -> None:
    assert RunConfig(seed=8).digest() != RunConfig(seed=7).digest()


def test_ckks_is_refused_together_with_privacy() -> None:
    values = {
        "encryption": {"scheme": "ckks"},
        "privacy": {"mode": "example_local", "noise_multiplier": 1.0, "divisor": 50.0},
    }
    assert "no epsilon is claimed with it" in refusal(values)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("scrub_mb_per_s", -1),
        ("keep", {"last": -1}),
        ("keep", {"days": -0.5}),
        ("keep", {"every": -1}),
        ("keep", {"grace_hours": 0.5}),
        ("keep", {"forever": True}),
    ],
)
def test_a_store_refuses_a_bound_that_would_harm(field: str, value: object) -> None:
    assert f"store.{field}" in refusal({"store": {field: value}})


def test_what_is_scrubbed_and_kept_reaches_the_aggregators() -> None:
    chosen = ["store.scrub_mb_per_s=2.5", "store.keep.last=3", "privacy=none"]
    store = RunConfig.parse(composed(*chosen)).store
    assert (store.scrub_mb_per_s, store.keep.last) == (2.5, 3)


# --- metrics --------------------------------------------------------------------------


def counting(**changes: Any) -> dict[str, Any]:
    return {"privacy": {**PRIVATE, "metrics": "dp", **changes}}


def test_counts_cost_a_quarter_of_the_target_unless_said_otherwise() -> None:
    parse = RunConfig.parse
    assert parse(counting()).privacy.counts_epsilon == 0.75
    assert parse(counting(metrics_epsilon=0.5)).privacy.counts_epsilon == 0.5


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"privacy": {"metrics": "dp"}}, "privacy.metrics=dp needs a privacy mode"),
        (
            {"privacy": {"metrics": "all"}},
            "metrics='all', must be 'none', 'dp' or",
        ),
        (
            {"privacy": {"metrics_epsilon": 1.0}},
            "do nothing with privacy.metrics=plain",
        ),
        ({"privacy": {"metrics_each_round": True}}, "do nothing with privacy.metrics"),
        (counting(metrics_epsilon=3.0), "must be below privacy.target_epsilon=3.0"),
        (counting(metrics_epsilon=0.0), "metrics_epsilon=0.0, must be greater than 0"),
        (
            counting(target_epsilon=None, noise_multiplier=1.0),
            "privacy.noise_multiplier needs privacy.metrics_epsilon",
        ),
        (
            counting(mode="silo", steps_per_round=1, sample_rate=1.0),
            "hides one row of a count, mode silo protects more than one",
        ),
        (
            {**counting(), "data": {"task": "regression"}},
            "data.task=regression has none",
        ),
    ],
)
def test_metrics_that_cannot_be_kept_are_refused(
    values: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigurationError) as no:
        RunConfig.parse(values)
    assert said in str(no.value)
