import socket
from pathlib import Path

import pytest

from fedsecure.config import AggregatorConfig
from fedsecure.doctor import reach
from fedsecure.doctor.reach import Server


def config(folder: Path, url: str, **engine: object) -> AggregatorConfig:
    return AggregatorConfig.model_validate(
        {
            "plan": {},
            "deadline": 10.0,
            "lease": str(folder / "lease"),
            "ttl": 3.0,
            "stores": [str(folder / "s1"), {"url": url, "bucket": "b"}],
            "quorum": 2,
            "engine": engine or {"name": "embedded"},
        }
    )


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        return int(gone.getsockname()[1])


def test_servers_are_dialled_and_folders_are_not(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port, shut = listening.getsockname()[1], closed_port()
        found = reach.servers(
            config(
                tmp_path,
                f"https://127.0.0.1:{port}",
                name="etcd",
                endpoints=[f"https://127.0.0.1:{shut}"],
            )
        )
    assert found == [
        Server("engine", "127.0.0.1", shut, "Connection refused"),
        Server("store", "127.0.0.1", port, ""),
    ]


def test_an_engine_that_can_be_asked_has_no_problem(tmp_path: Path) -> None:
    assert reach.engine_problem(config(tmp_path, "https://127.0.0.1:1")) == ""


def test_an_engine_that_does_not_answer_says_where(tmp_path: Path) -> None:
    shut = closed_port()
    asked = config(
        tmp_path,
        "https://127.0.0.1:1",
        name="etcd",
        endpoints=[f"http://127.0.0.1:{shut}"],
        timeout=0.5,
    )
    assert str(shut) in reach.engine_problem(asked)


def test_a_name_is_what_this_machine_makes_of_it() -> None:
    assert "127.0.0.1" in reach.addresses("localhost")
    assert reach.addresses("nowhere.invalid") == []


@pytest.mark.parametrize(("said", "kept"), [(0, True), (4, True), (5, False)])
def test_the_kernel_says_whether_its_clock_is_kept(said: int, *, kept: bool) -> None:
    assert reach.is_kept_by_ntp(lambda: said) is kept


def test_a_kernel_that_refuses_to_say_says_nothing() -> None:
    assert reach.is_kept_by_ntp(lambda: -1) is None


def test_this_kernel_can_be_asked() -> None:
    assert -1 <= reach._adjtimex() <= 5
