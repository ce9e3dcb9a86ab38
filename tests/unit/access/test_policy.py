import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsecure.access.policy import (
    LABEL,
    MAX_BYTES,
    Asked,
    Project,
    SitePolicy,
    read_policy,
)
from fedsecure.access.privacyrules import Promise
from fedsecure.errors import PolicyRefused
from fedsecure.keys import SigningKey

STEWARD = SigningKey.from_bytes(bytes(32))
TEXT = """\
# the steward's own words
format: 1
site: charite
valid_until: 2027-06-30T00:00:00Z
default: deny
projects:
  - id: heart-2027
    datasets: [heart-v3]
    schemes: [bfv]
    privacy: {modes: [example_local], min_noise_multiplier: 0.8, max_epsilon: 3.0,
              delta: 1e-5, max_sample_rate: 0.1}
    update: {max_bytes: 60000000, max_l2_norm: 1.0}
    runs: {max_rounds: 200}
    metrics: none
"""
TODAY = "2026-11-25T12:00:00Z"
ASKED = Asked(
    project="heart-2027",
    dataset="heart-v3",
    scheme="bfv",
    metrics="none",
    promise=Promise(
        mode="example_local",
        noise_multiplier=0.8,
        sample_rate=0.1,
        delta=1e-5,
        contributors=3,
    ),
    rounds=200,
    max_bytes=60_000_000,
)


def _read(text: str) -> SitePolicy:
    data = text.encode()
    return read_policy(data, STEWARD.sign(LABEL + data), STEWARD.public, "charite")


def _check(asked: Asked, text: str = TEXT) -> None:
    project, where = _read(text).project(asked.project, TODAY)
    project.check(asked, where)


def _project() -> tuple[Project, str]:
    return _read(TEXT).project("heart-2027", TODAY)


def test_a_plan_at_every_bound_is_allowed() -> None:
    _check(ASKED)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("dataset", "lung-v1", "datasets: the plan has 'lung-v1', allowed:.*heart-v3"),
        ("scheme", "insecure_plain", "schemes: the plan has 'insecure_plain'"),
        ("mode", "none", r"privacy.modes: the plan has 'none'"),
        ("metrics", "plain", "metrics: the plan releases metrics"),
        ("rounds", 201, r"runs.max_rounds: the plan has 201, at most 200"),
        ("max_bytes", 60_000_001, r"update.max_bytes: the plan has 60000001"),
        ("noise_multiplier", 0.79, "min_noise_multiplier: the plan has 0.79, at least"),
        ("sample_rate", 0.11, "max_sample_rate: the plan has 0.11, at most 0.1"),
        ("delta", 2e-5, "delta: the plan has 2e-05, at most 1e-05"),
        ("noise_multiplier", math.nan, "min_noise_multiplier: the plan has nan"),
        ("sample_rate", math.nan, "max_sample_rate: the plan has nan"),
    ],
)
def test_each_bound_is_named_when_it_is_passed(
    field: str, value: str | float, said: str
) -> None:
    given = {field: value}
    if field in Promise.__slots__:
        given = {"promise": replace(ASKED.promise, **given)}  # type: ignore[dict-item, arg-type]
    asked = replace(ASKED, **given)  # type: ignore[arg-type]
    with pytest.raises(PolicyRefused, match=r"policy.projects\[heart-2027\].*" + said):
        _check(asked)


def test_a_project_that_is_not_named_is_not_admitted() -> None:
    with pytest.raises(PolicyRefused, match=r"'lung' is not admitted at charite"):
        _check(replace(ASKED, project="lung"))


DP = replace(ASKED, metrics="dp", count_noise=8.0)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("dp", "the plan releases metrics (dp), none may"),
        ("plain", "the plan releases metrics (plain), none may"),
    ],
)
def test_metrics_beyond_none_are_refused_by_line(asked: str, said: str) -> None:
    line = TEXT.splitlines().index("    metrics: none") + 1
    with pytest.raises(PolicyRefused) as no:
        _check(replace(DP, metrics=asked), TEXT)
    assert said in str(no.value)
    assert f"line {line})" in str(no.value)


def test_plain_metrics_are_refused_where_noisy_counts_may_leave() -> None:
    text = TEXT.replace("metrics: none", "metrics: dp")
    with pytest.raises(PolicyRefused, match=r"\(plain\), only counts with noise may"):
        _check(replace(ASKED, metrics="plain"), text)


@pytest.mark.parametrize("allowed", ["dp", "plain"])
def test_noisy_counts_may_leave_where_as_much_or_more_may(allowed: str) -> None:
    _check(DP, TEXT.replace("metrics: none", f"metrics: {allowed}"))


def test_counts_with_less_noise_than_the_policy_s_least_are_refused() -> None:
    text = TEXT.replace("metrics: none", "metrics: dp")
    with pytest.raises(
        PolicyRefused, match=r"min_noise_multiplier: the plan has 0\.01"
    ):
        _check(replace(DP, count_noise=0.01), text)


def test_metrics_may_be_fewer_than_allowed() -> None:
    _check(ASKED, TEXT.replace("metrics: none", "metrics: plain"))


def test_bounds_of_noise_do_not_speak_where_there_is_no_privacy() -> None:
    text = TEXT.replace("[example_local]", "[none]")
    _check(replace(ASKED, promise=Promise()), text)


def test_an_update_beyond_the_norm_bound_stays() -> None:
    project, where = _project()
    with pytest.raises(PolicyRefused, match=r"max_l2_norm: the plan has 1.5, at most"):
        project.check_norm(1.5, where)


def test_an_update_whose_norm_is_no_number_stays() -> None:
    project, where = _project()
    with pytest.raises(PolicyRefused, match="max_l2_norm"):
        project.check_norm(math.nan, where)


def test_an_update_at_the_norm_bound_may_leave() -> None:
    project, where = _project()
    project.check_norm(1.0, where)


def test_one_second_before_its_end_a_policy_serves() -> None:
    _read(TEXT).project("heart-2027", "2027-06-29T23:59:59Z")


def test_at_its_end_a_policy_serves_no_more() -> None:
    with pytest.raises(PolicyRefused, match="valid_until: expired on 2027-06-30"):
        _read(TEXT).project("heart-2027", "2027-06-30T00:00:00Z")


def test_a_policy_that_is_not_signed_is_refused() -> None:
    with pytest.raises(PolicyRefused, match="not signed by its steward"):
        read_policy(TEXT.encode(), bytes(64), STEWARD.public, "charite")


def test_a_signature_of_somebody_else_is_refused() -> None:
    data, other = TEXT.encode(), SigningKey.generate()
    with pytest.raises(PolicyRefused, match="not signed by its steward"):
        read_policy(data, other.sign(LABEL + data), STEWARD.public, "charite")


def test_a_signature_for_another_purpose_is_refused() -> None:
    data = TEXT.encode()
    with pytest.raises(PolicyRefused, match="not signed by its steward"):
        read_policy(data, STEWARD.sign(data), STEWARD.public, "charite")


@given(st.integers(0, len(TEXT) - 1), st.integers(1, 127))
def test_any_changed_byte_voids_the_signature(position: int, flip: int) -> None:
    data = bytearray(TEXT.encode())
    data[position] ^= flip
    signature = STEWARD.sign(LABEL + TEXT.encode())
    with pytest.raises(PolicyRefused, match="not signed"):
        read_policy(bytes(data), signature, STEWARD.public, "charite")


def test_size_is_looked_at_before_the_signature() -> None:
    with pytest.raises(PolicyRefused, match=f"at most {MAX_BYTES}"):
        read_policy(bytes(MAX_BYTES + 1), b"", STEWARD.public, "charite")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("format: 1", "format: 2", "policy.format=2, must be 1"),
        ("format: 1", "format: true", "policy.format=True, must be 1"),
        ("format: 1", "format: 1.0", "policy.format=1.0, must be 1"),
        ("site: charite", "site: lmu", "policy.site='lmu', must be 'charite'"),
        ("default: deny", "default: allow", "policy.default='allow', must be 'deny'"),
        ("default: deny\n", "", "missing default"),
        ("default: deny", "defualt: deny", "'defualt'; did you mean 'default'"),
        ("metrics: none", "metrics: all", "metrics='all', must be none or dp or plain"),
        ("metrics: none", "metrics: [none]", "metrics=a list, must be"),
        ("metrics: none", "hours: {}\n    metrics: none", "unknown field 'hours'"),
        ("delta: 1e-5,", "delta: 1e-5, delta: 1e-2,", "duplicate key"),
        ("site: charite", "site: charite\nsite: charite", "duplicate key"),
        ("max_bytes: 60000000", "max_bytes: 6.5", "max_bytes=6.5, must be a whole"),
        ("max_bytes: 60000000", "max_bytes: -1", "max_bytes=-1, must be a whole"),
        ("max_rounds: 200", "max_rounds: true", "max_rounds=True, must be a whole"),
        ("max_rounds: 200", "max_rounds: .inf", "max_rounds=inf, must be a whole"),
        ("max_epsilon: 3.0", "max_epsilon: .nan", "max_epsilon=nan, must be a number"),
        ("max_epsilon: 3.0", "max_epsilon: .inf", "max_epsilon=inf, must be a number"),
        ("max_epsilon: 3.0", "max_epsilon: ten", "max_epsilon='ten', must be a number"),
        ("max_epsilon: 3.0", "max_epsilon: null", "max_epsilon=None, must be a number"),
        ("max_epsilon: 3.0", "max_epsilon: " + "9" * 5000, "max_epsilon|cannot be"),
        ("max_epsilon: 3.0", "max_epsilon: -0.1", "max_epsilon=-0.1, must be"),
        ("[heart-v3]", "heart-v3", "datasets='heart-v3', must be a list of texts"),
        ("[heart-v3]", "[3]", "datasets=a list, must be a list of texts"),
        ("runs: {max_rounds: 200}", "runs: 200", "runs=200, must have"),
        ("id: heart-2027", "id: 2027", "id=2027, must be a text"),
        ("id: heart-2027", "id: ''", "id='', must be a text"),
        ("2027-06-30T00:00:00Z", "never", "valid_until='never', must be UTC"),
        ("2027-06-30T00:00:00Z", "2027-06-30", "valid_until='2027-06-30', must be"),
        ("2027-06-30T00:00:00Z", "2027-13-30T00:00:00Z", "valid_until="),
        ("2027-06-30T00:00:00Z", "2027-06-30T00:00:00+02:00", "valid_until="),
        ("2027-06-30T00:00:00Z", "", "valid_until=None"),
        ("# the steward's own words", "%YAML 1.1\n---", "starting with %"),
        ("# the steward's own words", "---\na: 1\n---", "cannot be read"),
        ("site: charite", "? [1, 2]\n: 3\nsite: charite", "unknown field"),
        ("site: charite", "7: 3\nsite: charite", "unknown field 7"),
        ("site: charite", "site: !!python/name:os.system x", "cannot be read"),
    ],
)
def test_a_signed_policy_with_a_mistake_is_refused_and_named(
    old: str, new: str, said: str
) -> None:
    assert old in TEXT
    with pytest.raises(PolicyRefused, match=said.replace("[", r"\[")):
        _read(TEXT.replace(old, new, 1))


@pytest.mark.parametrize(
    "text", ["", "- a\n", "7", "[" * 1500, "a: *b", "\x00", "a: b: c"]
)
def test_what_is_no_mapping_is_no_policy(text: str) -> None:
    with pytest.raises(PolicyRefused):
        _read(text)


def test_bytes_that_are_no_utf8_are_no_policy() -> None:
    data = b"\xff\xfe"
    with pytest.raises(PolicyRefused, match="cannot be read"):
        read_policy(data, STEWARD.sign(LABEL + data), STEWARD.public, "charite")


def test_nested_aliases_do_not_fill_the_message() -> None:
    levels = "".join(f"l{n}: &l{n} [{f'*l{n - 1}, ' * 9}]\n" for n in range(1, 30))
    with pytest.raises(PolicyRefused) as refused:
        _read("l0: &l0 [x]\n" + levels + TEXT)
    assert len(str(refused.value)) < 300


def test_a_project_named_twice_is_refused() -> None:
    start = TEXT.index("  - id")
    with pytest.raises(PolicyRefused, match=r"projects\[1\].id='heart-2027' is there"):
        _read(TEXT + TEXT[start:])


def test_no_project_admits_nothing() -> None:
    text = TEXT[: TEXT.index("projects:")] + "projects: []\n"
    with pytest.raises(PolicyRefused, match="not admitted"):
        _read(text).project("heart-2027", TODAY)


@given(st.text(max_size=120))
def test_any_signed_text_is_a_policy_or_refused(text: str) -> None:
    with pytest.raises(PolicyRefused):
        _read(text.encode("utf-8", "replace").decode())


# --- open layers ----------------------------------------------------------------------

OPEN = TEXT.replace("metrics: none", "metrics: none\n    open_layers: true")


def test_a_policy_that_is_silent_wants_all_tensors_encrypted() -> None:
    with pytest.raises(PolicyRefused, match=r"open_layers.*all must be"):
        _check(replace(ASKED, open_layers=True))


def test_a_policy_may_say_that_all_tensors_are_encrypted() -> None:
    with pytest.raises(PolicyRefused, match="open_layers"):
        _check(replace(ASKED, open_layers=True), OPEN.replace("true", "false"))


def test_a_policy_may_allow_open_layers() -> None:
    _check(replace(ASKED, open_layers=True), OPEN)


def test_a_policy_that_allows_open_layers_asks_for_none() -> None:
    _check(ASKED, OPEN)


@pytest.mark.parametrize("value", ["'yes'", "1", "[true]", "null"])
def test_open_layers_are_true_or_false(value: str) -> None:
    with pytest.raises(PolicyRefused, match=r"open_layers=.*must be true or false"):
        _read(OPEN.replace("open_layers: true", f"open_layers: {value}"))
