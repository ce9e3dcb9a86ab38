"""A run with a kill in its third round, as the summary of a real one looks."""

from typing import Any

SITES = ("site-01", "site-02", "site-03")


def summary(**changes: Any) -> dict[str, Any]:
    """Return the figures of the run; `changes` replace whole fields."""
    return {
        "run_id": "run-0badcafe0042",
        "backend": "deployment",
        "rounds_planned": 6,
        "rounds_completed": 6,
        "sites": 3,
        "aggregators": 2,
        "parameters": 650,
        "scheme": "bfv",
        "uplink_bytes_per_parameter": 25.2,
        "downlink_bytes_per_parameter": 50.4,
        "final": {"accuracy": 0.904, "loss": 0.382},
        "baseline": {
            "unprotected_accuracy": 0.958,
            "local_noise_accuracy": None,
            "centralised_accuracy": 0.964,
        },
        "privacy": {
            "mode": "example_local",
            "delta": 1e-5,
            "relation": "add_or_remove_one",
            "noise_multiplier": 0.8711,
            "clip_norm": 1.0,
            "sample_rate": 0.2,
            "divisor": 80.0,
            "min_contributors": 0,
            "max_colluders": 0,
            "unit": "example",
            "per_site": dict.fromkeys(SITES, 7.998),
            "promises": [
                {
                    "against": "everybody but the site itself",
                    "epsilon": 7.998,
                    "accountant": "pld",
                    "nominal_pld": 7.998,
                }
            ],
            "warning": None,
        },
        "encryption": {
            "scheme": "bfv",
            "profile": "20",
            "field_bits": 24,
            "masking": "pairwise",
            "masking_threshold": 3,
            "downlink": "seeds",
        },
        "failovers": [
            {
                "term_before": 1,
                "term_after": 2,
                "seconds_to_leader": 3.42,
                "seconds_to_next_round": 6.2,
                "updates_reused": 2,
                "updates_redone": 0,
            }
        ],
        "rounds_lost": 0,
        "updates_lost": 0,
        "seconds": 24.0,
        "ledgers_verified": True,
        "ledgers": {"agg-1": 21, "agg-2": 34, **dict.fromkeys(SITES, 40)},
        "notes": [
            (
                "Loss and accuracy on test rows left the sites in plain and are in no "
                "epsilon."
            ),
            "Bounds of a.csv were read from the data.",
        ],
        **changes,
    }


def shared() -> dict[str, Any]:
    """Return the section `privacy` of a run whose sites shared their noise."""
    return {
        "mode": "example_distributed",
        "delta": 1e-5,
        "relation": "add_or_remove_one",
        "noise_multiplier": 6.1,
        "clip_norm": 0.5,
        "sample_rate": 1.0,
        "divisor": 1400.0,
        "min_contributors": 3,
        "max_colluders": 1,
        "unit": "example",
        "per_site": dict.fromkeys(SITES, 2.999),
        "promises": [
            {
                "against": "outsiders and aggregators, with at most one site on their "
                "side",
                "epsilon": 2.999,
                "accountant": "rdp",
                "nominal_pld": 2.75,
            },
            {
                "against": "all other sites together",
                "epsilon": 4.461,
                "accountant": "rdp",
                "nominal_pld": 4.1,
            },
        ],
        "warning": None,
    }


def rounds() -> list[dict[str, Any]]:
    """Return its rounds; the third was opened by agg-1 and released by agg-2."""
    times = [
        (2.0, 4.1),
        (4.2, 6.6),
        (6.7, 14.2),
        (14.3, 16.4),
        (16.5, 18.4),
        (18.5, 21),
    ]
    accuracy = [0.11, 0.62, 0.78, 0.842, 0.871, 0.893]
    loss = [2.30, 1.32, 0.86, 0.61, 0.49, 0.42]
    epsilon = [4.1, 5.2, 6.07, 6.8, 7.43, 7.998]
    return [
        {
            "round": i + 1,
            "term": 1 if i < 2 else 2,
            "leader": "agg-1" if i < 2 else "agg-2",
            "participants": list(SITES),
            "loss": loss[i],
            "accuracy": accuracy[i],
            "epsilon": dict.fromkeys(SITES, epsilon[i]),
            "uplink_bytes_per_parameter": 25.2,
            "downlink_bytes_per_parameter": 50.4,
            "seconds": ended - started,
            "started": started,
            "ended": ended,
        }
        for i, (started, ended) in enumerate(times)
    ]


def timeline() -> list[dict[str, Any]]:
    """Return its marks: two leaders, a kill between them, and the end."""

    def mark(at: float, event: str, name: str, term: int | None) -> dict[str, Any]:
        return {"at": at, "event": event, "name": name, "term": term, "round": None}

    return [
        mark(0.4, "leader", "agg-1", 1),
        mark(8.0, "kill", "agg-1", None),
        mark(11.42, "leader", "agg-2", 2),
        mark(24.0, "finished", "agg-2", 2),
    ]
