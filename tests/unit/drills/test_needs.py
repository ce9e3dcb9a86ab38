"""What a drill lacks is said by name, with what to install."""

from fedsecure.drills.needs import missing


def test_nothing_is_missing_where_all_is() -> None:
    assert missing(["nft"], root=True, find=lambda _: "/bin/x", user=lambda: 0) == []


def test_a_program_that_is_missing_is_named_with_its_package() -> None:
    found = missing(["nft"], find=lambda _: None)
    assert found == [
        "the program 'nft' is missing: install Debian's nftables, or its like"
    ]


def test_who_is_not_root_is_told_so() -> None:
    (told,) = missing([], root=True, user=lambda: 1000)
    assert "run it as root" in told
