"""How long a leader may go on that is cut off its engine."""

from fedsecure.drills.lease import TTL
from fedsecure.drills.partition import overstayed


def test_a_leader_that_stops_within_its_lease_is_what_was_promised() -> None:
    assert overstayed("east", TTL, "one way") == []


def test_a_leader_that_leads_on_breaks_the_promise() -> None:
    (text,) = overstayed("east", 2 * TTL + 0.1, "one way")
    assert text.startswith("east led on for 6.1 s, cut off one way")
