"""A run's events become its summary, counted from what was journalled."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedsecure.backends import Event, Outcome
from fedsecure.update import JSON

Facts = dict[str, JSON]


@dataclass(frozen=True, slots=True)
class Digest:
    """A run in three tables: one row a round, one an event worth a mark, and totals."""

    rounds: list[Facts]
    timeline: list[Facts]
    totals: Facts


def digest(outcome: Outcome, plan: Mapping[str, JSON]) -> Digest:
    """Return the tables of a run."""
    events = sorted(outcome.events, key=lambda e: _number(e["now"]))
    start = _number(events[0]["now"]) if events else 0.0
    parameters = _parameters(events)
    rounds = _rounds(events, outcome, start, parameters)
    planned = int(_number(plan["rounds"]))
    final = _final(events)
    totals: Facts = {
        "rounds_planned": planned,
        "rounds_completed": len(
            {int(_number(r["round"])) for r in rounds} | _standing(events)
        ),
        "parameters": parameters,
        "uplink_bytes_per_parameter": _mean(rounds, "uplink_bytes_per_parameter"),
        "downlink_bytes_per_parameter": _mean(rounds, "downlink_bytes_per_parameter"),
        "final": {
            "accuracy": final.get("accuracy"),
            "loss": final.get("loss"),
            **_noise(final),
        },
        "failovers": _failovers(events),
        "rounds_lost": rounds_lost(events),
        "updates_lost": updates_lost(events),
        "seconds": _number(events[-1]["now"]) - start if events else 0.0,
    }
    return Digest(rounds, _timeline(events, start), totals)


def rounds_lost(events: Sequence[Event]) -> int:
    """Count rounds released before the last one and not followed up in order.

    A released round is lost if another leader released it again, or if a later round
    was released while it is missing and was never skipped.
    """
    released = [int(_number(e["round"])) for e in events if e["event"] == "released"]
    journalled = _standing(events)
    skipped = {int(_number(e["round"])) for e in events if e["event"] == "skipped"}
    twice = len(released) - len(set(released))
    expected = set(range(1, max(released, default=0) + 1)) - skipped
    return twice + len(expected - set(released) - journalled)


def _standing(events: Sequence[Event]) -> set[int]:
    """Return the rounds a successor found released in the journal.

    A leader may die between a release and its event; the journal has the release.
    """
    lists = [e["released"] for e in events if e["event"] == "standing"]
    return {int(number) for texts in lists for number in _texts(texts)}


def updates_lost(events: Sequence[Event]) -> int:
    """Count accepted updates that are in no released round, of rounds released."""
    released = {
        int(_number(e["round"])): set(_texts(e["participants"]))
        for e in events
        if e["event"] == "released"
    }
    accepted = {
        (int(_number(e["round"])), str(e["site"]))
        for e in events
        if e["event"] == "update"
    }
    return sum(1 for n, site in accepted if n in released and site not in released[n])


def _rounds(
    events: Sequence[Event], outcome: Outcome, start: float, parameters: int
) -> list[Facts]:
    out: list[Facts] = []
    opened = _first_by_round(events, ("opened", "resumed"))
    for event in (e for e in events if e["event"] == "released"):
        number = int(_number(event["round"]))
        sites = _texts(event["participants"])
        metrics = pooled(event["metrics"])
        ended = _number(event["now"])
        up, down = (
            _number(event[k]) / max(len(sites), 1) / max(parameters, 1)
            for k in ("received_bytes", "sent_bytes")
        )
        out.append(
            {
                "round": number,
                "term": event["term"],
                "leader": event["source"],
                "participants": list(sites),
                "loss": metrics.get("loss"),
                "accuracy": metrics.get("accuracy"),
                **_noise(metrics),
                "epsilon": _epsilons(outcome, number),
                "uplink_bytes_per_parameter": up,
                "downlink_bytes_per_parameter": down,
                "seconds": ended - opened.get(number, ended),
                "started": opened.get(number, ended) - start,
                "ended": ended - start,
            }
        )
    return out


def _epsilons(outcome: Outcome, number: int) -> Facts:
    return {
        site: history[min(number, len(history)) - 1]
        for site, history in outcome.epsilons.items()
        if history
    }


def _failovers(events: Sequence[Event]) -> list[JSON]:
    leaders = [e for e in events if e["event"] == "leader"]
    out: list[JSON] = []
    for before, after in itertools.pairwise(leaders):
        faults = [
            _number(e["now"])
            for e in events
            if e["event"] == "kill" and e["term"] == before["term"]
        ]
        if before["holder"] == after["holder"] and not faults:
            continue
        since = faults[0] if faults else _number(before["now"])
        later = [e for e in events if _number(e["now"]) >= _number(after["now"])]
        out.append(_failover(before, after, since, events, later))
    return out


def _failover(
    before: Event,
    after: Event,
    since: float,
    events: Sequence[Event],
    later: Sequence[Event],
) -> Facts:
    released = [e for e in later if e["event"] == "released"]
    resumed = [e for e in later if e["event"] == "resumed"]
    reused = set(_texts(resumed[0]["reused"])) if resumed else set()
    number = resumed[0]["round"] if resumed else None
    taken = [
        str(e["site"])
        for e in events
        if e["event"] == "update" and e["round"] == number
    ]
    return {
        "term_before": before["term"],
        "term_after": after["term"],
        "seconds_to_leader": _number(after["now"]) - since,
        "seconds_to_next_round": (
            _number(released[0]["now"]) - since if released else None
        ),
        "updates_reused": len(reused),
        "updates_redone": len(taken) - len(set(taken)),
    }


def _timeline(events: Sequence[Event], start: float) -> list[Facts]:
    kept = {"leader", "kill", "released", "lost", "skipped", "finished"}
    return [
        {
            "at": _number(e["now"]) - start,
            "event": e["event"],
            "name": e.get("holder") or e.get("victim") or e["source"],
            "term": e.get("term"),
            "round": e.get("round"),
        }
        for e in events
        if e["event"] in kept
    ]


def _final(events: Sequence[Event]) -> Facts:
    finished = [e for e in events if e["event"] == "finished"]
    return pooled(finished[-1]["metrics"]) if finished else {}


def pooled(metrics: JSON) -> Facts:
    """Return the sites' metrics as one: means weighted by their test rows.

    Counts with noise are added up first and cut after, so that sites' noise cancels:
    accuracy is from 0 to 1 whatever was drawn, and nothing is said of no rows.
    `accuracy_noise` is the standard deviation that the noise alone gives it.
    """
    told = [m for m in _values(metrics) if isinstance(m, dict)]
    counts = [found for m in told if (found := _counts(m)) is not None]
    if counts:
        return _pooled_counts(counts)
    rows = [m for m in told if "num_test" in m]
    total = sum(_number(m["num_test"]) for m in rows)
    if not total:
        return {}
    names = {k for m in rows for k in m if k not in {"num_test", "saturated"}}
    return {
        name: sum(_number(m[name]) * _number(m["num_test"]) for m in rows if name in m)
        / total
        for name in sorted(names)
    }


def _counts(told: Mapping[str, JSON]) -> tuple[float, float, float] | None:
    """Return a site's noisy counts and their noise; None: it told none, or nonsense."""
    found = [told.get(name) for name in ("noisy_correct", "noisy_wrong", "noise")]
    numbers = [
        v for v in found if type(v) in {int, float} and math.isfinite(_number(v))
    ]
    if len(numbers) != 3:
        return None
    correct, wrong, noise = map(_number, numbers)
    return correct, wrong, noise


def _pooled_counts(counts: Sequence[tuple[float, float, float]]) -> Facts:
    correct = max(sum(c for c, _, _ in counts), 0.0)
    wrong = max(sum(w for _, w, _ in counts), 0.0)
    total = correct + wrong
    if total < 1:
        return {}
    accuracy = correct / total
    # First order in noise over rows: the quotient's two derivatives.
    spread = math.hypot(1 - accuracy, accuracy) / total
    noise = spread * math.hypot(*(z for _, _, z in counts))
    return {"accuracy": accuracy, "accuracy_noise": noise}


def _noise(metrics: Mapping[str, JSON]) -> Facts:
    return {k: v for k, v in metrics.items() if k == "accuracy_noise"}


def _values(metrics: JSON) -> list[JSON]:
    return list(metrics.values()) if isinstance(metrics, dict) else []


def _parameters(events: Sequence[Event]) -> int:
    began = [e for e in events if e["event"] == "began"]
    return int(_number(began[0]["parameters"])) if began else 0


def _first_by_round(
    events: Sequence[Event], kinds: tuple[str, ...]
) -> dict[int, float]:
    out: dict[int, float] = {}
    for event in events:
        if event["event"] in kinds:
            out.setdefault(int(_number(event["round"])), _number(event["now"]))
    return out


def _mean(rounds: Sequence[Facts], name: str) -> float:
    values = [_number(row[name]) for row in rounds]
    return sum(values) / len(values) if values else 0.0


def _number(value: Any) -> float:
    return float(value)


def _texts(value: JSON) -> list[str]:
    return [str(v) for v in value] if isinstance(value, list) else []
