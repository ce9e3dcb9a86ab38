"""A site's quantiser in a whole run: agreed ranges, chance, and the residual."""

from dataclasses import replace

import numpy as np
import pytest

from fedsecure.client_quantiser import agree, agreed, residual, round_quantiser
from fedsecure.client_run import ClientRun
from fedsecure.errors import PolicyRefused, VerificationError
from fedsecure.residual import Residual
from fedsecure.update import RoundId, Vector
from tests.fakes.federation import RUN, Federation
from tests.fakes.quantising import Quantising

ME = "site-2"
BEFORE, AFTER = np.zeros(9), np.full(9, 0.01)


def fed_back() -> Quantising:
    return Quantising(profile="8", range_from="aggregate", error_feedback=True)


def run_of(federation: Federation) -> ClientRun:
    return federation.sites[ME].half()._runs.get(RUN)


def finished(federation: Federation) -> Vector:
    """Return the one model of all sites after the last round."""
    federation.lead()
    (model,) = set(federation.models().values())
    return np.frombuffer(model)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> ClientRun:
    """Return a site's run after four rounds, before its residual is removed."""
    monkeypatch.setattr(Residual, "forget", lambda _: None)
    federation = fed_back()
    federation.lead()
    return run_of(federation)


@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
@pytest.mark.parametrize("range_from", ["config", "aggregate"])
@pytest.mark.parametrize("feedback", [False, True])
def test_sites_open_one_model_close_to_plain_floats(
    rounding: str, range_from: str, *, feedback: bool
) -> None:
    federation = Quantising(
        rounding=rounding, range_from=range_from, error_feedback=feedback
    )
    model = finished(federation)
    np.testing.assert_allclose(model, federation.expected_model(), atol=1e-5)


def test_ranges_by_tensor_and_feedback_come_closer_with_eight_bits() -> None:
    plain, better = Quantising(profile="8"), fed_back()
    expected = plain.expected_model()
    error = np.abs(finished(plain) - expected).max()
    assert np.abs(finished(better) - expected).max() < error / 3


def test_first_rounds_have_the_plan_s_range(run: ClientRun) -> None:
    assert agreed(run, 0) is run.plan.fixed


def test_rounds_after_a_release_have_the_ranges_kept_with_it(run: ClientRun) -> None:
    assert agreed(run, 4).ranges == run.shelf.ranges(4)
    assert max(agreed(run, 4).ranges.bounds) < 1  # type: ignore[union-attr]


def test_used_ranges_go_with_their_models(run: ClientRun) -> None:
    found = run.shelf.store.keys(f"{RUN}/ranges/")
    assert found == (f"{RUN}/ranges/3", f"{RUN}/ranges/4")


def test_missing_ranges_are_an_error_and_never_the_plan_s(run: ClientRun) -> None:
    with pytest.raises(VerificationError, match="after round 7 are not on the shelf"):
        agreed(run, 7)


def test_ranges_are_kept_again_after_a_crash(run: ClientRun) -> None:
    for _ in range(2):
        agree(run, 9, BEFORE, AFTER)
    assert agreed(run, 9).ranges.bounds == (2**-4, 2**-4)  # type: ignore[union-attr]


def test_ranges_from_the_configuration_keep_nothing() -> None:
    federation = Quantising()
    federation.lead()
    run = run_of(federation)
    assert run.shelf.store.keys(f"{RUN}/ranges/") == ()
    assert agreed(run, 4) is run.plan.fixed


def test_a_repeated_run_rounds_alike_and_no_two_rounds_or_sites_do() -> None:
    federation = Quantising(rounding="stochastic")
    federation.lead()
    first = federation.sites["site-1"].half()._runs.get(RUN)
    other = federation.sites["site-2"].half()._runs.get(RUN)

    def chance(run: ClientRun, number: int) -> float:
        rng = round_quantiser(run, RoundId(RUN, number), 4).rng
        assert rng is not None
        return float(rng.random())

    assert chance(first, 5) == chance(first, 5)
    assert len({chance(first, 5), chance(first, 6), chance(other, 5)}) == 3


def test_residual_goes_when_the_run_is_over() -> None:
    federation = fed_back()
    federation.lead()
    store = run_of(federation).shelf.store
    assert store.keys(f"{RUN}/residual/") == ()


def test_residual_of_the_last_answer_is_on_the_disk(run: ClientRun) -> None:
    carry = residual(run).begin(5)
    assert carry.source == 4
    assert np.abs(carry.add(np.zeros(10))).max() > 0


@pytest.mark.parametrize(
    "change", [{"rounding": "stochastic"}, {"error_feedback": True}]
)
def test_chance_and_feedback_are_refused_with_privacy_on(
    change: dict[str, object],
) -> None:
    federation = Federation()
    federation.lead()
    run = run_of(federation)
    assert run.plan.privacy is not None
    encryption = replace(run.plan.encryption, **change)  # type: ignore[arg-type]
    run.plan = replace(run.plan, encryption=encryption)
    with pytest.raises(PolicyRefused, match="must be nearest and false"):
        round_quantiser(run, RoundId(RUN, 3), 2)


def test_private_site_rounds_to_the_nearest_and_carries_nothing() -> None:
    federation = Federation()
    federation.lead()
    run = run_of(federation)
    how = round_quantiser(run, RoundId(RUN, 3), 2)
    assert (how.rng, how.carry) == (None, None)
