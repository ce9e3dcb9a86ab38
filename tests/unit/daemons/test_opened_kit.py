"""With which kit a daemon may start."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fedsecure.access.roster import Role
from fedsecure.clock import SystemClock
from fedsecure.daemons.opened_kit import open_kit
from fedsecure.disk import SystemDisk
from fedsecure.errors import KitError
from fedsecure.provision.kits import provision

DESCRIPTION = """\
name: heart
aggregators:
  - {name: agg-1, host: 127.0.0.1, port: 9091, organisation: Hub}
sites:
  - {name: site-01, organisation: North}
"""


def made(folder: Path, age: timedelta = timedelta(0)) -> Path:
    description = folder / "federation.yaml"
    description.write_text(DESCRIPTION, encoding="utf-8")
    provision(description, folder / "kits", datetime.now(UTC) - age)
    return folder / "kits"


def test_a_daemon_opens_the_kit_of_its_role(tmp_path: Path) -> None:
    kit = open_kit(made(tmp_path) / "site-01", Role.SITE, SystemDisk(), SystemClock())
    assert kit.name == "site-01"


def test_a_kit_of_another_role_is_refused(tmp_path: Path) -> None:
    path = made(tmp_path) / "site-01"
    with pytest.raises(KitError, match="needed is one of role aggregator"):
        open_kit(path, Role.AGGREGATOR, SystemDisk(), SystemClock())


def test_a_kit_whose_roster_expired_is_refused(tmp_path: Path) -> None:
    path = made(tmp_path, timedelta(days=400)) / "agg-1"
    with pytest.raises(KitError, match=r"agg-1: roster 1 expired on .*provision"):
        open_kit(path, Role.AGGREGATOR, SystemDisk(), SystemClock())
