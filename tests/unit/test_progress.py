"""A run at a terminal."""

import io
import json
from pathlib import Path
from typing import Any

from rich.console import Console

from fedsecure.progress import Progress, closing_lines
from tests.fakes import figures


def shown(*events: dict[str, Any]) -> str:
    out = io.StringIO()
    progress = Progress(Console(file=out, width=400))
    for event in events:
        progress.show(event)
    return out.getvalue()


PLAN = {
    "event": "plan",
    "text": "run-1",
    "epsilons": [1.0, 1.5],
    "delta": 1e-5,
    "relation": "add_or_remove_one",
    "scheme": "bfv",
}
RELEASED = {
    "event": "released",
    "round": 1,
    "term": 1,
    "source": "agg-1",
    "participants": ["a"],
    "metrics": {},
    "seconds": 1.0,
    "now": 1.0,
    "received_bytes": 10,
    "sent_bytes": 10,
}


def closing(tmp_path: Path, **changes: Any) -> dict[str, str]:
    text = json.dumps(figures.summary(**changes))
    (tmp_path / "summary.json").write_text(text, encoding="utf-8")
    return dict(closing_lines(tmp_path))


def test_epsilon_of_a_round_stands_with_relation_and_delta() -> None:
    assert "ε 1.00 add-or-remove-one at δ 1e-05" in shown(PLAN, RELEASED)


def test_a_round_without_privacy_has_no_epsilon() -> None:
    assert "ε" not in shown({**PLAN, "epsilons": []}, RELEASED)


def test_a_warning_is_one() -> None:
    warned = {"event": "warned", "text": "silo with 3 sites is useless here"}
    assert "WARNING silo with 3 sites is useless here" in shown(warned)


def test_both_epsilons_close_a_run_with_whom_they_hold_against(tmp_path: Path) -> None:
    lines = closing(tmp_path, privacy=figures.shared())
    assert lines["ε 3.00"].startswith("against outsiders and aggregators")
    assert "rdp; nominal PLD 2.75" in lines["ε 3.00"]
    assert lines["ε 4.46"].startswith("against all other sites together (δ 1e-05, add-")


def test_no_privacy_closes_with_no_promise(tmp_path: Path) -> None:
    none = {**figures.shared(), "promises": []}
    assert "no differential privacy" in closing(tmp_path, privacy=none)["ε"]


def test_local_noise_stands_beside(tmp_path: Path) -> None:
    base = {**figures.summary()["baseline"], "local_noise_accuracy": 0.82}
    assert closing(tmp_path, baseline=base)["local noise"].startswith("82.0% at the")


def test_masks_and_downlink_are_told(tmp_path: Path) -> None:
    said = closing(tmp_path)["hidden by"]
    assert "pairwise masks, opened by 3 sites" in said
    assert "downlink seeds" in said


def test_a_silo_that_is_useless_is_told_again(tmp_path: Path) -> None:
    privacy = {**figures.shared(), "warning": "useless"}
    assert closing(tmp_path, privacy=privacy)["WARNING"] == "useless"


NOISY = {"site-1": {"noisy_correct": 60, "noisy_wrong": 20, "noise": 4.0}}


def test_accuracy_of_noisy_counts_has_its_noise_beside_it() -> None:
    said = shown(PLAN, {**RELEASED, "metrics": NOISY})
    assert "model before it: accuracy 75.0% ± 4.0 points of noise" in said


def test_a_run_that_told_counts_closes_with_their_noise(tmp_path: Path) -> None:
    final = {"accuracy": 0.75, "loss": None, "accuracy_noise": 0.04}
    said = closing(tmp_path, final=final)["accuracy"]
    assert said == "75.0% ± 4.0 points of noise with the protection on"
