"""What a report must say beside its figures: where they hold, and where they do not."""

from collections.abc import Sequence

from fedsecure.baselines import plainly
from fedsecure.config import RunConfig
from fedsecure.learning.datasets import SiteData
from fedsecure.sections import TrainConfig
from fedsecure.update import JSON


def data_notes(parts: Sequence[SiteData]) -> list[JSON]:
    """Return where the rows came from and what was done to them; a run is local."""
    told = parts[0].description
    keys = ("name", "sha256", "normalisation", "partition", "split")
    facts = [f"{key} {told[key]}" for key in keys if key in told]
    return ["Data: " + "; ".join(facts) + "."]


def run_notes(config: RunConfig, *, shared: bool) -> list[JSON]:
    """Return what does not follow from the figures.

    Parameters
    ----------
    shared : bool
        Whether checkpoint replicas share a device.
    """
    notes: list[JSON] = []
    if shared:
        notes.append(
            f"The {config.store.replicas} checkpoint replicas lie on one device: one "
            "disk would lose them all (store.require_distinct_devices refuses that)."
        )
    if config.backend.name == "inprocess":
        notes.append(
            "One process: the sites' policies were checked, but one process is no "
            "boundary between sites and server."
        )
    notes += _metrics_notes(config.privacy.metrics)
    if config.privacy.mode == "none":
        notes.append("No differential privacy: the opened sum is protected by nothing.")
    if config.encryption.scheme == "insecure_plain":
        notes.append("Updates were NOT encrypted (insecure_plain).")
    if config.encryption.encrypt_layers:
        notes.append(_open_note(config.encryption.encrypt_layers))
    if config.baselines and plainly(config) != config.train.model_dump(mode="json"):
        usual, own = TrainConfig().learning_rate, config.train.learning_rate
        notes.append(
            f"Baselines without noise take plain SGD at learning rate {usual:g}: the "
            f"run's {own:g} is of a noisy step."
        )
    if config.baselines and config.privacy.mode != "none":
        notes.append(
            "Every accuracy is of one run with noise of its own: a point or two "
            "between this run and its baselines may be chance."
        )
    if config.privacy.mode not in {"none", "example_local"}:
        notes.append(
            "The epsilon against all other sites together rests on one share of noise: "
            "its site must have drawn it honestly and keep it to itself."
        )
    notes.append(
        "Not covered by any epsilon: preprocessing, choice of features, model and "
        "learning rate, side channels."
    )
    return notes


def _metrics_notes(metrics: str) -> list[JSON]:
    if metrics == "plain":
        return [
            "Loss and accuracy on test rows left the sites in plain, in no epsilon."
        ]
    if metrics == "dp":
        return [_COUNTS]
    return []


_COUNTS = (
    "Accuracy is of noisy counts of test rows, paid for out of the same epsilon: what "
    "is made of them is noisy too."
)


def _open_note(patterns: Sequence[str]) -> JSON:
    return (
        f"Only the tensors {', '.join(patterns)} were encrypted, and what shares a "
        "block with them. The aggregator read all other blocks: their sum with "
        "pairwise masks, every single update without. Open layers can be enough to "
        "rebuild training rows (gradient inversion)."
    )
