"""Known answers of `bfv`: made again, read by a second decoder, and their noise."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fedsecure import registry
from fedsecure.ciphertext import from_bytes, to_bytes
from fedsecure.encoding import check_tags, profile, unpack
from fedsecure.running_sum import RunningSum
from fedsecure.update import IntVector
from tests.vectors import decoder, generate

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
FACTS = json.loads((HERE / "bfv.json").read_text(encoding="utf-8"))
FILES = (*generate.NAMES, generate.TOTAL)
WIRES = {name: (HERE / f"{name}.fshe").read_bytes() for name in FILES}
SECRET: NDArray[np.int64] = np.array(["-0+".index(c) - 1 for c in FACTS["secret"]])
TOTAL = np.sum([generate.plaintext(n) for n in generate.NAMES], axis=0) % (1 << 48)


@pytest.fixture(scope="module")
def again() -> tuple[dict[str, Any], dict[str, bytes]]:
    return generate.made()


def total_wire() -> bytes:
    running = RunningSum(generate.KEY_ID, max_summands=3)
    for name in generate.NAMES:
        data = WIRES[name]
        running.add(from_bytes(data, key_id=generate.KEY_ID, max_summands=1))
    return to_bytes(running.total())


def test_the_same_words_make_the_same_facts(
    again: tuple[dict[str, Any], dict[str, bytes]],
) -> None:
    assert again[0] == FACTS


def test_the_same_words_make_the_same_wire_bytes(
    again: tuple[dict[str, Any], dict[str, bytes]],
) -> None:
    assert again[1] == WIRES


@pytest.mark.parametrize("name", generate.NAMES)
def test_a_decoder_without_seal_reads_what_was_encrypted(name: str) -> None:
    opened = decoder.open_block(WIRES[name], 0, SECRET)
    assert opened == generate.plaintext(name)[0].tolist()


def test_a_decoder_without_seal_reads_the_sum() -> None:
    assert decoder.open_block(total_wire(), 0, SECRET) == TOTAL[0].tolist()


def test_a_decoder_without_seal_reads_the_sum_of_both_polynomials() -> None:
    wire = WIRES[generate.TOTAL]
    assert decoder.open_block(wire, 0, SECRET) == TOTAL[0].tolist()


def test_a_sum_of_both_polynomials_has_the_noise_of_its_summands() -> None:
    errors = decoder.errors(WIRES[generate.TOTAL], 0, SECRET)
    assert 5 < max(map(abs, errors)) <= 3 * 21.5


def test_both_forms_open_to_the_same_sum() -> None:
    opened = [FACTS[f]["opened_sha256"] for f in ("total", "total_of_pairs")]
    assert opened == [generate.digest(TOTAL.astype("<u8").tobytes())] * 2


def test_the_sum_of_both_polynomials_on_the_wire_is_the_known_one() -> None:
    digest = generate.digest(WIRES[generate.TOTAL])
    assert digest == FACTS["total_of_pairs"]["wire_sha256"]


def test_the_sum_on_the_wire_is_the_known_one() -> None:
    assert generate.digest(total_wire()) == FACTS["total"]["wire_sha256"]


def test_the_opened_sum_holds_the_integers_and_the_tags_of_the_three() -> None:
    check_tags(TOTAL[:, -1], generate.TAG_KEY, generate.ROUND, generate.NAMES)
    parts = [unpack(generate.plaintext(n), profile("20"), 8190) for n in generate.NAMES]
    assert np.array_equal(unpack(TOTAL, profile("20"), 8190), np.sum(parts, axis=0))


def test_the_secret_is_ternary_with_a_third_of_each() -> None:
    counts = [FACTS["secret"].count(c) for c in "-0+"]
    assert sum(counts) == 4096
    assert min(counts) > 4096 / 3 - 150  # five standard deviations


@pytest.mark.parametrize("name", generate.NAMES)
def test_fresh_noise_is_within_its_proven_bound(name: str) -> None:
    # ENCRYPTION 3: |e| <= 21, and rounding q/t times m adds at most 1/2.
    errors = decoder.errors(WIRES[name], 0, SECRET)
    assert 5 < max(map(abs, errors)) <= 21.5


def test_noise_of_a_sum_is_within_that_of_its_summands() -> None:
    errors = decoder.errors(total_wire(), 0, SECRET)
    assert max(map(abs, errors)) <= 3 * 21.5


def test_a_real_key_and_real_seeds_are_read_by_the_second_decoder_too() -> None:
    scheme: Any = registry.load("he", "bfv").create({})
    key = scheme.keygen(generate.KEY_ID)
    blocks: IntVector = np.random.default_rng(1).integers(0, 1 << 48, (2, 4096))
    wire = to_bytes(scheme.encryptor(key).encrypt(blocks))
    secret = generate.secret_polynomial(scheme, key)
    opened = [decoder.open_block(wire, i, secret) for i in range(2)]
    assert opened == blocks.tolist()
    both = to_bytes(scheme.encryptor(key, seeded=False).encrypt(blocks))
    opened = [decoder.open_block(both, i, secret) for i in range(2)]
    assert opened == blocks.tolist()


def test_the_generator_that_repeats_is_set_by_generate_and_nobody_else() -> None:
    call = "set_random" + "_generator"
    rooms = ("fedsecure", "clients", "server", "tests", "experiments", "conf", "docs")
    files = [
        path
        for room in rooms
        for kind in ("*.py", "*.yaml")
        for path in (ROOT / room).rglob(kind)
    ]
    found = {p for p in files if call in p.read_text(encoding="utf-8")}
    assert found == {HERE / "generate.py"}


def test_the_example_of_the_page_is_in_the_file() -> None:
    page = (ROOT / "docs/wire-format.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([\d,]+) \| `((?:[0-9a-f]{2} ?)+)", page, re.MULTILINE)
    assert len(rows) == 12
    for at, shown in rows:
        start, expected = int(at.replace(",", "")), bytes.fromhex(shown)
        assert WIRES["random"][start : start + len(expected)] == expected
