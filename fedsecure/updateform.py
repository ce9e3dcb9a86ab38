"""How a run's updates begin: the same at all sites, from plan, key and model alone.

The custodian names it when a run begins, and an aggregator refuses another one.
"""

import numpy as np

from fedsecure.body import Form
from fedsecure.ciphertext import MAX_BLOCKS
from fedsecure.downlink import SEEDS, downlink_form
from fedsecure.errors import VerificationError
from fedsecure.he import Scheme, SecretKey
from fedsecure.runplan import RunPlan
from fedsecure.selection import Selection, select
from fedsecure.update import Layout


def update_seeded(plan: RunPlan, parameters: int) -> bool:
    """Return whether updates carry seeds; custodian and sites find the same."""
    encryption = plan.encryption
    chosen = downlink_form(
        encryption.downlink, len(plan.sites), parameters, encryption.link_mbps
    )
    return chosen == SEEDS


def update_form(
    plan: RunPlan,
    scheme: Scheme,
    key: SecretKey,
    parameters: int,
    layout: Layout | None = None,
) -> Form:
    """Return how every update of the run begins, from a ciphertext of zeros.

    Parameters
    ----------
    layout : Layout, optional
        Needed where the plan leaves tensors open.
    """
    encryptor = scheme.encryptor(key, seeded=update_seeded(plan, parameters))
    slots = encryptor.slots
    sample = encryptor.encrypt(np.zeros((1, slots), dtype=np.int64))
    chosen = selection(plan, parameters, slots, layout)
    return Form.of(sample, chosen.closed.size, chosen.opened.size, slots)


def selection(
    plan: RunPlan, parameters: int, slots: int, layout: Layout | None
) -> Selection:
    """Return which blocks of an update are encrypted; all, unless the plan says less.

    Raises
    ------
    VerificationError
        More blocks than a ciphertext has: an aggregator names the number of parameters
        where a custodian did not make the model. Or the plan leaves tensors open, and
        the layout is not known or of another size.
    ConfigurationError
        The plan's patterns do not fit the layout.
    """
    weighted, patterns = bool(plan.max_rows), plan.encryption.encrypt_layers
    blocks = plan.profile.blocks(parameters + weighted, slots)
    if blocks > MAX_BLOCKS:
        raise VerificationError(
            f"run {plan.run}: {parameters} parameters fill {blocks} blocks, at most "
            f"{MAX_BLOCKS}"
        )
    if not patterns:
        return Selection.whole(blocks)
    if layout is None or layout.num_parameters != parameters:
        raise VerificationError(
            f"run {plan.run} encrypts some tensors only, and no layout of "
            f"{parameters} parameters says which"
        )
    return select(layout, patterns, plan.profile, slots, weighted=weighted)
