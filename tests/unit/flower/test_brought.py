"""When a leader leaves a release to a standby: after a site's word, until it fails."""

from fedsecure.flower.brought import Brought

ME = "site-1"


def told(*words: tuple[int, int]) -> Brought:
    """Return what is known after words of a last round brought, and one built on."""
    brought = Brought()
    for last, after in words:
        brought.told(ME, last, after)
    return brought


def test_nothing_is_left_to_standbys_at_first() -> None:
    assert not told().relied(ME)
    assert not told((0, 0)).relied(ME)


def test_first_word_under_a_leadership_counts_for_nothing() -> None:
    """It may be of an outbox, and who carried then may be who leads now."""
    assert not told((3, 3)).relied(ME)


def test_site_that_was_brought_its_release_in_time_is_left_to_them() -> None:
    assert told((0, 2), (3, 3)).relied(ME)


def test_release_brought_behind_a_letter_that_held_it_counts_too() -> None:
    assert told((1, 2), (2, 3)).relied(ME)


def test_word_that_does_not_go_up_is_of_a_standby_that_is_gone() -> None:
    assert not told((3, 3), (3, 4)).relied(ME)


def test_word_of_one_site_says_nothing_of_another() -> None:
    assert not told((0, 2), (3, 3)).relied("site-2")


def test_site_that_was_brought_nothing_lately_is_sent_its_releases() -> None:
    assert not told((0, 2), (3, 3), (3, 5)).relied(ME)


def test_first_update_is_no_word_of_the_release_before_it() -> None:
    assert not told((0, 0), (0, 1)).relied(ME)


def test_site_that_missed_one_wants_the_next_in_time() -> None:
    brought = told((2, 2), (3, 3))
    assert brought.missed(ME)
    brought.told(ME, 4, 5)
    assert not brought.relied(ME)
    brought.told(ME, 6, 6)
    assert brought.relied(ME)


def test_refusal_of_a_site_that_was_not_left_to_them_is_no_miss() -> None:
    brought = told((0, 0))
    assert not brought.missed(ME)
    brought.told(ME, 1, 2)
    assert brought.relied(ME)


def test_round_beyond_the_newest_release_is_no_word() -> None:
    assert not told((0, 0), (9, 3)).relied(ME)
