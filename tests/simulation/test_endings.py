"""The end of a run: what sites refuse then, and what that says of their models."""

from collections.abc import Callable, Mapping

import pytest

from fedsecure.errors import QuorumNotMet, TrainingFailed
from fedsecure.metadata import Step
from fedsecure.trainer import JSON, TrainingResult, TrainingTask
from tests.fakes.federation import Federation


def fails_to_evaluate(
    run: Callable[[TrainingTask], TrainingResult],
) -> Callable[[TrainingTask], TrainingResult]:
    def ran(task: TrainingTask) -> TrainingResult:
        if not task.train:
            raise TrainingFailed("out of memory in the evaluation")
        return run(task)

    return ran


def published(federation: Federation) -> list[int]:
    return [e.round for e in federation.journal() if e.step == Step.PUBLISH]


def test_a_run_whose_last_metrics_nobody_can_tell_is_complete() -> None:
    federation = Federation(private=False)
    for site in federation.sites.values():
        site.trainer.run = fails_to_evaluate(site.trainer.run)  # type: ignore[method-assign, assignment]
    federation.lead()
    assert published(federation) == [1, 2]
    assert all(federation.models().values())
    (finished,) = [f for e, f in federation.notes.events if e == "finished"]
    assert finished["metrics"] == dict.fromkeys(federation.sites)


def test_a_run_whose_last_release_nobody_was_let_open_is_not_complete() -> None:
    """A policy that ends between the last round and the last letter, say."""
    federation = Federation(private=False)

    def closes(event: str, fields: Mapping[str, JSON]) -> None:
        note(event, fields)
        if event == "released" and fields["round"] == 2:
            for site in federation.sites.values():
                site.gate.refuses = "its validity has ended"

    note = federation.notes.note
    federation.notes.note = closes  # type: ignore[method-assign]
    with pytest.raises(QuorumNotMet, match=r"3 sites \(policy\): no site has"):
        federation.lead()
    assert published(federation) == [1]
    assert not any(federation.models().values())
