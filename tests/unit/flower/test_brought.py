"""When a leader leaves a release to a standby: after a site's word, until it fails."""

from fedsecure.flower.brought import Brought

ME = "site-1"


def told(*words: tuple[int, int]) -> Brought:
    brought = Brought()
    for last, after in words:
        brought.told(ME, last, after)
    return brought


def test_nothing_is_left_to_standbys_at_first() -> None:
    assert not told().relied(ME)
    assert not told((0, 0)).relied(ME)


def test_site_that_was_brought_its_release_in_time_is_left_to_them() -> None:
    assert told((3, 3)).relied(ME)


def test_release_brought_behind_a_letter_that_held_it_counts_too() -> None:
    assert told((2, 3)).relied(ME)


def test_word_of_one_site_says_nothing_of_another() -> None:
    assert not told((3, 3)).relied("site-2")


def test_site_that_was_brought_nothing_lately_is_sent_its_releases() -> None:
    assert not told((3, 3), (3, 5)).relied(ME)


def test_first_update_is_no_word_of_the_release_before_it() -> None:
    assert not told((0, 1)).relied(ME)


def test_site_that_missed_one_wants_the_next_in_time() -> None:
    brought = told((3, 3))
    brought.missed(ME)
    brought.told(ME, 3, 4)
    assert not brought.relied(ME)
    brought.told(ME, 5, 5)
    assert brought.relied(ME)


def test_refusal_of_a_site_that_was_not_left_to_them_is_no_miss() -> None:
    brought = told()
    brought.missed(ME)
    brought.told(ME, 1, 2)
    assert brought.relied(ME)


def test_round_beyond_the_newest_release_is_no_word() -> None:
    assert not told((9, 3)).relied(ME)
