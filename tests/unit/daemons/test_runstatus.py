"""What a supervisor makes of a SuperLink's word, and of its silence."""

from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from fedsecure.daemons.runstatus import SILENCES, RunFailed, RunStatus
from fedsecure.errors import ProcessFailed
from fedsecure.flower.link import SuperLinkRefused

LOG = Path("superlink.log")
HANGS = SuperLinkRefused(httpx.ReadTimeout("timed out"))


def refused() -> SuperLinkRefused:
    request = httpx.Request("POST", "https://here")
    said = httpx.Response(500, text="no", request=request)
    return SuperLinkRefused(httpx.HTTPStatusError("no", request=request, response=said))


def saying(*answers: str | Exception) -> Callable[[], str]:
    left = list(answers)

    def ask() -> str:
        answer = left.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return ask


def test_complete_run_is_complete() -> None:
    assert RunStatus(saying("finished:completed"), LOG).complete()


def test_running_run_is_not_complete() -> None:
    assert not RunStatus(saying("running"), LOG).complete()


def test_failed_run_is_said_with_its_log() -> None:
    failed = RunStatus(saying("finished:failed"), LOG)
    with pytest.raises(RunFailed, match=r"finished:failed; see superlink\.log"):
        failed.complete()


def test_failed_run_says_why() -> None:
    failed = RunStatus(saying("finished:failed: ServerApp failed: no roster"), LOG)
    with pytest.raises(RunFailed, match=r"failed: no roster$"):
        failed.complete()


def test_silence_is_borne_less_often_than_the_limit() -> None:
    status = RunStatus(saying(*[HANGS] * (SILENCES - 1)), LOG)
    assert not any(status.complete() for _ in range(SILENCES - 1))


def test_superlink_that_leaves_questions_in_a_row_unanswered_stands_still() -> None:
    status = RunStatus(saying(*[HANGS] * SILENCES), LOG)
    for _ in range(SILENCES - 1):
        status.complete()
    with pytest.raises(ProcessFailed, match="the SuperLink stands still: 3 questions"):
        status.complete()


@pytest.mark.parametrize("answer", ["running", refused()])
def test_answer_between_silences_forgives_them(answer: str | Exception) -> None:
    asked = [HANGS, HANGS, answer, HANGS, HANGS]
    status = RunStatus(saying(*asked), LOG)
    assert [status.complete() for _ in asked] == [False] * 5
