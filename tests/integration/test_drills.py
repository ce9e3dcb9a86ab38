"""Every drill keeps its promises, as its command says; one of them in `make test`."""

import pytest
from typer.testing import CliRunner

from fedsecure.cli import app
from fedsecure.drills.catalogue import DRILLS

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(290),
    pytest.mark.flower,
]
SHORT = "corrupt"


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name == SHORT else [pytest.mark.chaos])
        for name in DRILLS
    ],
)
def test_drill_keeps_every_promise(name: str) -> None:
    if lacks := DRILLS[name].missing():
        pytest.skip("; ".join(lacks))
    done = CliRunner().invoke(app, ["drill", name])
    assert done.exit_code == 0, done.output
    assert "1 of 1 repetitions kept every promise" in done.output
