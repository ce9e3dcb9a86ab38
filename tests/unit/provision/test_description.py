from collections.abc import Callable
from pathlib import Path

import pytest

from fedsecure.access.roster import Role
from fedsecure.errors import ConfigurationError
from fedsecure.provision.description import MAX_BYTES, Wanted, read_description

TEXT = """\
name: heart
aggregators:
  - {name: agg-1, host: agg.example.org, port: 9091, organisation: A}
  - {name: agg-2, host: '::1', port: 9092, organisation: B}
sites:
  - {name: site-01, organisation: A}
operators:
  - {name: ada, organisation: A}
"""
Read = Callable[[str], tuple[str, list[Wanted]]]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    def written(text: str) -> tuple[str, list[Wanted]]:
        path = tmp_path / "federation.yaml"
        path.write_text(text, encoding="utf-8")
        return read_description(path)

    return written


def test_members_come_in_the_order_of_the_groups(read: Read) -> None:
    name, wanted = read(TEXT)
    assert (name, [w.name for w in wanted]) == (
        "heart",
        ["agg-1", "agg-2", "site-01", "ada"],
    )


def test_a_host_of_colons_stands_in_brackets(read: Read) -> None:
    assert [w.address for w in read(TEXT)[1] if w.role == Role.AGGREGATOR] == [
        "agg.example.org:9091",
        "[::1]:9092",
    ]


def test_operators_may_be_none(read: Read) -> None:
    text = TEXT[: TEXT.index("operators")]
    assert len(read(text)[1]) == 3


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("name: heart\n", "", r"name=NoneType, must be a text"),
        ("name: heart", "name: 7", r"name=int, must be a text"),
        ("name: heart", "name: Heart", r"name='Heart': use a-z"),
        ("name: heart", "nmae: heart", r"'nmae'; did you mean 'name'"),
        ("sites:\n  - {name: site-01, organisation: A}", "sites: []", "at least 1"),
        ("sites:\n  - {name: site-01, organisation: A}", "sites: x", "must be a list"),
        ("sites:\n  - {name: site-01, organisation: A}", "sites:", "must be a list"),
        ("{name: site-01, organisation: A}", "site-01", r"sites\[0\] must have"),
        ("name: site-01", "name: ca", r"sites\[0\].name='ca'"),
        ("name: site-01", "name: ../up", r"name='../up'"),
        ("name: site-01", "name: site-0123456789ab", "at most 15 characters"),
        ("name: site-01", "name: ''", "must be a text of 1"),
        ("name: site-01", "name: agg-1", "name agg-1 is there twice"),
        ("site-01, organisation: A", "site-01", r"missing organisation"),
        ("site-01, organisation: A", "site-01, organisation: ' '", "organisation=' '"),
        ("site-01, organisation: A", "site-01, organisation: [A]", "organisation=list"),
        ("site-01, organisation", "site-01, port: 1, organisation", "'port'"),
        ("port: 9091, ", "", r"aggregators\[0\]: missing port"),
        ("port: 9091", "port: 0", "port=0, must be 1 to 65535"),
        ("port: 9091", "port: 65536", "port=65536, must be"),
        ("port: 9091", "port: true", "port=True, must be"),
        ("port: 9091", "port: '9091'", "port='9091', must be"),
        ("host: agg.example.org", "host: 'two words'", "host='two words', must be"),
        ("host: agg.example.org", "host: ''", "host='', must be a text"),
        ("host: agg.example.org", "host: https://a.org", "must be a host name"),
        ("host: '::1', port: 9092", "host: agg.example.org, port: 9091", "address"),
        ("name: heart", "name: heart\nname: lung", "duplicate key"),
        ("name: heart", "- name: heart", "cannot be read"),
        ("name: heart", "name: !!python/name:os.system x", "cannot be read"),
        ("name: heart", "name: " + "[" * 1500, "cannot be read"),
    ],
)
def test_a_mistake_is_refused_and_named(
    read: Read, old: str, new: str, said: str
) -> None:
    assert old in TEXT
    with pytest.raises(ConfigurationError, match=said):
        read(TEXT.replace(old, new, 1))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"nowhere\.yaml cannot be read"):
        read_description(tmp_path / "nowhere.yaml")


def test_a_file_that_is_too_large_is_not_read(read: Read) -> None:
    with pytest.raises(ConfigurationError, match=f"at most {MAX_BYTES}"):
        read("#" * (MAX_BYTES + 1))


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "federation.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_description(path)
