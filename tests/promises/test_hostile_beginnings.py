"""A custodian that names a false form is followed by the next; open key files stop."""

import json
import shutil
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest

from fedsecure.access.kit import read_kit
from fedsecure.ciphertext import HEADER_BYTES
from fedsecure.disk import SystemDisk
from fedsecure.envelope import Kind, Scope, parse
from fedsecure.errors import KitError
from fedsecure.provision.kits import provision
from fedsecure.update import JSON, RoundId
from tests.fakes.federation import MAX_BYTES, RUN, Federation
from tests.fakes.forgery import altered, code_of
from tests.fakes.hostile import off_by, trio
from tests.fuzz.halftargets import CUSTODIAN

SITES = ["site-1", "site-2", "site-3"]
STEP = 1e-5
NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
TEXT = """\
name: heart
aggregators: [{name: agg-1, host: 127.0.0.1, port: 9091, organisation: A}]
sites: [{name: site-01, organisation: A}]
operators: [{name: ada, organisation: A}]
"""


def with_form(federation: Federation, form: bytes) -> None:
    """Have the first custodian name this form, at the end of its message."""

    def tamper(site: str, data: bytes) -> bytes:
        found = parse(data, MAX_BYTES)
        if site != CUSTODIAN or found.kind != Kind.BEGIN:
            return data
        rows = json.loads(found.header)["parts"]
        assert rows[-1] == ["form", HEADER_BYTES]
        body = bytes(found.body)[:-HEADER_BYTES] + form
        rows[-1] = ["form", len(form)]
        return altered(federation, data, header={"parts": rows}, body=body)

    federation.tamper = tamper


@pytest.mark.parametrize(
    "form",
    [
        b"",
        bytes(39),
        bytes(40),
        bytes(80),
        b"FSHE\1\0\x0c\1" + b"\xff" * 32,
        b"FSHE\1\0\x0f\2\0\0\x10\0\1\0\1\0" + b"\xff" * 7 + b"\x0f" + bytes(16),
    ],
    ids=["none", "short", "zeros", "two of zeros", "blocks", "larger than a message"],
)
def test_a_custodian_whose_form_no_round_can_use_is_followed_by_the_next(
    form: bytes,
) -> None:
    federation = trio()
    with_form(federation, form)
    federation.lead()
    began = [f for name, f in federation.notes.events if name == "began"]
    assert [f["custodian"] for f in began] == ["site-2"]
    assert off_by(federation, SITES) < STEP


@pytest.mark.parametrize("parameters", [1 << 34, 1 << 45, (1 << 53) - 1])
def test_a_custodian_refuses_to_make_a_form_of_more_blocks_than_there_are(
    parameters: int,
) -> None:
    federation = trio()
    leader, site = federation.leader("agg-1"), federation.sites[CUSTODIAN]
    scope = Scope(RoundId(RUN, 0), CUSTODIAN, b"", b"", leader.terms.plan_digest)
    header: dict[str, JSON] = {
        "term": leader.term,
        "plan": dict(leader.terms.plan),
        "initial": False,
        "parameters": parameters,
    }
    letter = leader.sign(Kind.BEGIN_REQUEST, scope, header, b"")
    assert code_of(site.answer(letter)) == "verification"


# --- files ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("federation")
    (folder / "federation.yaml").write_text(TEXT)
    provision(folder / "federation.yaml", folder / "kits", NOW)
    return folder / "kits"


read = partial(read_kit, disk=SystemDisk(), mode=lambda path: path.stat().st_mode)


@pytest.mark.parametrize("member", ["agg-1", "site-01", "ada"])
@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660, 0o601])
def test_a_kit_with_any_key_that_others_may_touch_is_refused(
    made: Path, tmp_path: Path, member: str, mode: int
) -> None:
    keys = sorted(path.name for path in (made / member).glob("*.key"))
    assert {"signing.key", "box.key"} <= set(keys)
    for name in keys:
        kit = Path(shutil.copytree(made / member, tmp_path / name))
        assert read(kit).name == member
        (kit / name).chmod(mode)
        with pytest.raises(KitError, match=f"{name} can be read by others: chmod 600"):
            read(kit)
