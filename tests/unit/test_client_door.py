"""Who is listened to: an aggregator of the roster, for this site, of no older term."""

import pytest

from fedsecure.client_door import Door
from fedsecure.envelope import Verified, parse
from fedsecure.errors import StaleTerm, VerificationError
from fedsecure.flower.beginning import begin
from fedsecure.flower.letters import Letters
from fedsecure.keys import SigningKey
from fedsecure.trainer import JSON
from tests.fakes.federation import MAX_BYTES, Federation, Site
from tests.fakes.forgery import altered

ME = "site-2"
STRANGER = SigningKey.from_bytes(b"s" * 32)


class Threshold:
    """A site's door, and the letters that come to it."""

    def __init__(self) -> None:
        self.federation = Federation()
        leader = self.federation.leader("agg-1")
        self.letter = Letters(leader, begin(leader, None)).request(ME, 1, train=True)()
        self.site: Site = self.federation.sites[ME]

    def door(self) -> Door:
        return self.site.half()._door

    def comes(self, **fields: object) -> Verified:
        """Return the letter as the door gives it on, changed and signed again."""
        data = altered(self.federation, self.letter, **fields)  # type: ignore[arg-type]
        return self.door().checked(parse(data, MAX_BYTES))


@pytest.fixture
def threshold() -> Threshold:
    return Threshold()


def test_request_of_an_aggregator_for_this_site_is_let_in(threshold: Threshold) -> None:
    request = threshold.comes()
    assert (request.signer, request.scope.site) == ("agg-1", ME)


def test_request_of_a_stranger_is_refused(threshold: Threshold) -> None:
    with pytest.raises(VerificationError, match="agg-9"):
        threshold.comes(signer="agg-9", key=STRANGER)


def test_request_signed_by_a_site_is_refused(threshold: Threshold) -> None:
    with pytest.raises(VerificationError, match="is no aggregator"):
        threshold.comes(signer="site-1")


def test_request_with_another_key_s_signature_is_refused(threshold: Threshold) -> None:
    with pytest.raises(VerificationError, match="signature"):
        threshold.comes(key=STRANGER)


def test_request_for_another_site_is_refused(threshold: Threshold) -> None:
    with pytest.raises(VerificationError, match="message is for site 'site-1'"):
        threshold.comes(scope={"site": "site-1"})


@pytest.mark.parametrize("term", [None, -1, "1", True])
def test_term_that_is_no_count_is_refused(threshold: Threshold, term: JSON) -> None:
    with pytest.raises(VerificationError, match="'term' is not a count"):
        threshold.comes(header={"term": term})


def test_older_term_is_refused_with_the_term_seen(threshold: Threshold) -> None:
    threshold.comes(header={"term": 5})
    with pytest.raises(StaleTerm, match="term 4 of run-1, this site has seen 5") as no:
        threshold.comes(header={"term": 4})
    assert no.value.seen == 5


def test_older_term_is_refused_by_the_process_after_a_crash(
    threshold: Threshold,
) -> None:
    threshold.comes(header={"term": 5})
    threshold.site.die()
    assert threshold.door().seen("run-1") == 5


def test_new_term_is_in_the_ledger_once_the_request_is_let_in(
    threshold: Threshold,
) -> None:
    threshold.comes(header={"term": 5})
    seen = [(r.action, r.run, r.term) for r in threshold.site.records()]
    assert ("term.seen", "run-1", 5) in seen


def test_term_of_one_run_is_not_another_s(threshold: Threshold) -> None:
    threshold.comes(header={"term": 5})
    assert threshold.door().seen("run-2") == 0
