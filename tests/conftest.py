"""Settings all tests share: one thread for torch, the same examples in every CI run.

And what is dear to start: one federation of real processes a session.
"""

import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from tests.fakes.deployed import Ran

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported; workers too

# A loaded machine is slow, not wrong: no deadline. CI repeats, `make properties` roams.
settings.register_profile("default", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.register_profile(
    "fuzz",
    deadline=None,
    max_examples=2000,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile(
    os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "default")
)


@pytest.fixture(scope="session")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> "Ran":
    """Return a run of real Flower processes whose leader was killed."""
    from tests.fakes import deployed as made  # it imports the whole house

    return made.deployed(tmp_path_factory.mktemp("failover"))
