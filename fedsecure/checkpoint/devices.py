"""Which folders of stores lie on one device: one disk would lose them together."""

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from fedsecure.checkpoint.call import Call, Moved

log = logging.getLogger(__name__)

LINGER = 4.0
"""Seconds a mount may take to say what device it is."""


def shared_devices(
    paths: Sequence[Path], linger: float = LINGER
) -> list[tuple[Path, Path]]:
    """Return pairs of folders that lie on one device.

    A mount that does not answer counts as a device of its own: it must not keep those
    from starting who can do without it.
    """
    asked = [Call(str(path), partial(_device, path)).start() for path in paths]
    devices: dict[int, Path] = {}
    shared = []
    for path, call in zip(paths, asked, strict=True):
        if not call.wait(linger):
            log.warning("store %s does not say on which device it is", path)
            continue
        device = call.result()
        if device in devices:
            shared.append((devices[device], path))
        devices.setdefault(device, path)
    return shared


def _device(path: Path, _: Moved) -> int:
    return _existing(path).stat().st_dev


def _existing(path: Path) -> Path:
    return path if path.exists() else _existing(path.parent)
