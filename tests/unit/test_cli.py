"""The command line as a user meets it: what it prints, and with which code it ends."""

import itertools
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer.main
from ruamel.yaml import YAML
from typer.testing import CliRunner

from fedsecure.cli import app, main
from fedsecure.clock import SystemClock
from fedsecure.config import AggregatorConfig, NodeConfig, Section, parse_section
from fedsecure.disk import SystemDisk
from fedsecure.keys import SigningKey
from fedsecure.ledger import Ledger
from fedsecure.metadata import Engine
from fedsecure.registry import load

DOCS = Path(__file__).parents[2] / "docs"
SUMMARY = {
    "run_id",
    "backend",
    "rounds_planned",
    "rounds_completed",
    "sites",
    "aggregators",
    "parameters",
    "scheme",
    "uplink_bytes_per_parameter",
    "downlink_bytes_per_parameter",
    "final",
    "baseline",
    "privacy",
    "failovers",
    "rounds_lost",
    "updates_lost",
    "ledgers_verified",
}
DESCRIPTION = """\
name: heart
aggregators:
  - {name: agg-1, host: 127.0.0.1, port: 9091, organisation: Hub}
sites:
  - {name: site-01, organisation: North}
"""
PRIVATE = ["privacy=example_local", "privacy.target_epsilon=3"]


@dataclass(frozen=True, slots=True)
class Ended:
    """What a command said, and its exit code."""

    code: int
    out: str
    err: str


class Shell:
    """Runs commands in this process, as the entry point does."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys

    def __call__(self, *words: str | Path) -> Ended:
        self._monkeypatch.setattr(sys, "argv", ["fedsecure", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = self._capsys.readouterr()
        code = ended.value.code
        assert code is None or isinstance(code, int)
        return Ended(code or 0, captured.out, captured.err)


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(monkeypatch, capsys)


@pytest.fixture
def quick(tmp_path: Path) -> list[str]:
    return [
        "run",
        f"run_root={tmp_path / 'runs'}",
        "experiment=digits_quick",
        "federation.rounds=1",
    ]


@pytest.fixture
def kits(tmp_path: Path, shell: Shell) -> Path:
    description = tmp_path / "federation.yaml"
    description.write_text(DESCRIPTION, encoding="utf-8")
    assert shell("provision", description, "-o", tmp_path / "kits").code == 0
    return tmp_path / "kits"


def commands(node: Any, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield above
    for name, below in getattr(node, "commands", {}).items():
        yield from commands(below, (*above, name))


def table(path: Path, kind: str = "binary", sites: int = 3) -> list[str]:
    """Write 60 rows with a category and missing cells; return the overrides."""
    lines = ["hospital,age,sex,outcome"]
    for i in range(60):
        age = "" if i % 7 == 0 else str(20 + i * 7 % 41)
        sex = "NA" if i % 13 == 0 else "mfx"[i % 3]
        lines.append(f"h{i % sites},{age},{sex},{outcome(kind, i)}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    task = "regression" if kind == "regression" else "classification"
    return [
        "data=csv",
        f"data.path={path}",
        "data.target=outcome",
        "data.site_column=hospital",
        f"data.task={task}",
    ]


def outcome(kind: str, row: int) -> str:
    if kind == "regression":
        return f"{0.5 * (row % 11) + 0.1 * (row % 3):.2f}"
    return "abc"[row % 4 % 3] if kind == "multi-class" else ("no", "yes")[row % 5 > 1]


def nothing_left(tmp_path: Path) -> bool:
    runs = tmp_path / "runs"
    return not runs.exists() or list(runs.iterdir()) == []


# --- help -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command", list(commands(typer.main.get_command(app))), ids=" ".join
)
def test_every_command_explains_itself(command: tuple[str, ...]) -> None:
    result = CliRunner().invoke(app, [*command, "--help"])
    assert result.exit_code == 0
    assert "Usage:" in result.output


def test_help_loads_no_torch() -> None:
    program = (
        "import sys\n"
        "from typer.testing import CliRunner\n"
        "from fedsecure.cli import app\n"
        "for words in (['--help'], ['run', '--help'], ['kit', 'renew', '--help']):\n"
        "    assert CliRunner().invoke(app, words).exit_code == 0\n"
        "print(sorted({'torch', 'flwr', 'tenseal', 'hydra'} & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_version_is_one_line(shell: Shell) -> None:
    assert shell("--version").out.startswith("fedsecure 0.")


@pytest.mark.parametrize("page", ["operate.md", "kits.md", "adopt.md"])
def test_every_command_of_the_pages_exists_with_its_options(page: str) -> None:
    found = list(written_commands(DOCS / page))
    assert found
    known = set(commands(typer.main.get_command(app)))
    for words in found:
        path = tuple(itertools.takewhile(str.isalpha, words))
        command = next(path[:n] for n in range(len(path), -1, -1) if path[:n] in known)
        assert command, words
        options = {opt for p in resolved(command).params for opt in p.opts}
        used = {word for word in words if word.startswith("-")}
        assert used <= options | {"--help"}, words


@pytest.mark.parametrize(
    ("number", "kind"), [(0, NodeConfig), (1, AggregatorConfig)], ids=["node", "agg"]
)
def test_the_files_of_the_operators_page_are_read_and_complete(
    number: int, kind: type[Section]
) -> None:
    page = (DOCS / "operate.md").read_text("utf-8")
    example = json.loads(re.findall(r"```json\n(.*?)```", page, re.DOTALL)[number])
    parse_section(kind, example, Path("example"))
    assert set(example) == set(kind.model_fields)


def written_commands(page: Path) -> Iterator[list[str]]:
    text = page.read_text("utf-8").replace("\\\n", " ")
    for line in re.findall(r"(?:`|^ *)fedsecure ([^`\n#;]+)", text, re.MULTILINE):
        yield shlex.split(line)


def resolved(path: tuple[str, ...]) -> Any:
    node: Any = typer.main.get_command(app)
    for name in path:
        node = node.commands[name]
    return node


# --- run: the configuration -------------------------------------------------------


def test_cfg_job_prints_the_checked_configuration_as_yaml(shell: Shell) -> None:
    ended = shell("run", "--cfg", "job", "federation.rounds=3")
    assert ended.code == 0
    values = YAML(typ="safe").load(ended.out)
    assert values["federation"]["rounds"] == 3


def test_cfg_knows_only_job(shell: Shell) -> None:
    assert shell("run", "--cfg", "hydra").code == 2


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["rounds=3"], "unknown key 'rounds'; did you mean federation.rounds?"),
        (["+train.epoch=3"], "unknown key 'train.epoch'; did you mean 'epochs'?"),
        (["data=digit"], "data=digit: choose one of breast_cancer, csv, digits"),
        (["a b"], "override 'a b' cannot be read"),
        (["federation.rounds=0"], "federation.rounds=0, must be greater than or"),
        (["federation.rounds=-2"], "federation.rounds=-2, must be greater than or"),
        ([*PRIVATE[:1], "privacy.target_epsilon=0"], "target_epsilon=0, must be great"),
        ([*PRIVATE, "privacy.clip_norm=nan"], "privacy.clip_norm=NaN, must be a finit"),
        ([*PRIVATE, "privacy.delta=0.01"], "delta=0.01, must be above 0 and below 1/"),
        (["store=local", "store.require_distinct_devices=true"], "are on one device"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_a_bad_value_is_one_sentence_and_code_2(
    overrides: list[str], said: str, shell: Shell, quick: list[str], tmp_path: Path
) -> None:
    ended = shell(*quick, *overrides)
    assert ended.code == 2
    assert said in ended.err
    assert "Traceback" not in ended.err
    assert nothing_left(tmp_path)


def test_a_bad_value_late_in_a_sweep_stops_it_before_the_first_run(
    shell: Shell, quick: list[str], tmp_path: Path
) -> None:
    ended = shell(*quick, "-m", "federation.rounds=1,0")
    assert ended.code == 2
    assert ended.out == ""
    assert nothing_left(tmp_path)


def test_more_sites_than_kits_names_both_numbers(
    shell: Shell, quick: list[str], kits: Path, tmp_path: Path
) -> None:
    ended = shell(*quick, f"federation.kits={kits}", "federation.sites=3")
    assert ended.code == 2
    assert f"federation.sites=3, {kits} holds kits for 1" in ended.err
    assert nothing_left(tmp_path)


def test_a_store_that_cannot_be_written_is_named(
    shell: Shell, quick: list[str], tmp_path: Path
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("no folder", encoding="utf-8")
    paths = f"store.paths=[{tmp_path}/a,{tmp_path}/b,{blocked}/c]"
    ended = shell(*quick, "store=local", paths)
    assert ended.code == 2
    assert f"1 of 3 stores are not usable: {blocked}/c" in ended.err
    assert nothing_left(tmp_path)


# --- run: the user's own table ----------------------------------------------------


def test_a_target_that_is_no_column_is_named_with_the_columns(
    shell: Shell, quick: list[str], tmp_path: Path
) -> None:
    ended = shell(*quick, *table(tmp_path / "t.csv"), "data.target=death")
    assert ended.code == 2
    assert 'target "death" is not in t.csv; columns: hospital, age, sex' in ended.err
    assert nothing_left(tmp_path)


def test_a_site_without_rows_is_refused(
    shell: Shell, quick: list[str], tmp_path: Path
) -> None:
    ended = shell(*quick, *table(tmp_path / "t.csv", sites=2))
    assert ended.code == 2
    assert "the site column holds 2 sites (h0, h1), the federation has 3" in ended.err
    assert nothing_left(tmp_path)


def test_an_empty_file_of_a_site_is_named(
    shell: Shell, quick: list[str], tmp_path: Path
) -> None:
    files = [tmp_path / f"{name}.csv" for name in "abc"]
    for path in files[:2]:
        overrides = table(path)
    files[2].write_text("hospital,age,sex,outcome\n", encoding="utf-8")
    named = ",".join(str(path) for path in files)
    ended = shell(*quick, *overrides, f"data.path=[{named}]", "data.site_column=null")
    assert ended.code == 2
    assert "c.csv" in ended.err
    assert nothing_left(tmp_path)


def test_a_ragged_line_is_named(shell: Shell, quick: list[str], tmp_path: Path) -> None:
    overrides = table(tmp_path / "t.csv")
    with (tmp_path / "t.csv").open("a", encoding="utf-8") as file:
        file.write("h0,31,m\n")
    ended = shell(*quick, *overrides)
    assert ended.code == 2
    assert "t.csv:62: 3 fields, the header has 4" in ended.err
    assert nothing_left(tmp_path)


@pytest.mark.parametrize("kind", ["binary", "multi-class", "regression"])
def test_a_table_with_a_category_and_gaps_runs(
    kind: str, shell: Shell, quick: list[str], tmp_path: Path
) -> None:
    ended = shell(*quick, *table(tmp_path / "t.csv", kind))
    assert ended.code == 0, ended.err
    folder = Path(ended.out.splitlines()[-1])
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    assert summary.keys() >= SUMMARY
    assert summary["rounds_completed"] == 1
    assert summary["ledgers_verified"] is True


def test_a_sweep_prints_one_folder_a_run(
    shell: Shell, quick: list[str], tmp_path: Path
) -> None:
    ended = shell(*quick, "-m", "seed=1,2")
    folders = [Path(line) for line in ended.out.splitlines()]
    assert len(set(folders)) == 2
    assert sorted(folders) == sorted((tmp_path / "runs").iterdir())


# --- the other commands -----------------------------------------------------------


def test_a_ledger_that_holds_is_said_to_hold(shell: Shell, tmp_path: Path) -> None:
    path = diary(tmp_path)
    ended = shell("ledger", "verify", path)
    assert ended.code == 0
    assert "3 lines verified" in ended.out


def test_the_first_bad_line_of_a_ledger_is_named(shell: Shell, tmp_path: Path) -> None:
    path = diary(tmp_path)
    path.write_bytes(path.read_bytes().replace(b"north", b"south"))
    ended = shell("ledger", "verify", path)
    assert ended.code == 1
    assert f"{path}: line 2: edited" in ended.err


def test_a_ledger_that_is_not_there_is_a_usage_error(
    shell: Shell, tmp_path: Path
) -> None:
    assert shell("ledger", "verify", tmp_path / "no.jsonl").code == 2


def diary(tmp_path: Path) -> Path:
    path = tmp_path / "ledger.jsonl"
    key = SigningKey.generate()
    ledger = Ledger.open(path, "site-01", key, SystemDisk(), SystemClock())
    ledger.append("run.joined", "north")
    ledger.append("run.joined", "west")
    ledger.close()
    return path


def test_provision_again_adds_the_new_site_and_changes_no_kit(
    shell: Shell, kits: Path, tmp_path: Path
) -> None:
    before = {p: p.read_bytes() for p in kits.glob("site-01/*") if p.is_file()}
    description = tmp_path / "federation.yaml"
    again = shell("provision", description, "-o", kits)
    assert "nothing new: roster 1" in again.out
    with description.open("a", encoding="utf-8") as file:
        file.write("  - {name: site-02, organisation: South}\n")
    more = shell("provision", description, "-o", kits)
    assert "made kits for site-02" in more.out
    assert "roster.d/2.json" in more.out
    assert {p: p.read_bytes() for p in before} == before


def test_provision_with_a_passphrase_is_shut_without_it(
    shell: Shell, tmp_path: Path
) -> None:
    description, secret = tmp_path / "federation.yaml", tmp_path / "passphrase"
    description.write_text(DESCRIPTION, encoding="utf-8")
    secret.write_text("correct horse\n", encoding="utf-8")
    secret.chmod(0o600)
    out = tmp_path / "kits"
    words: list[str | Path] = ["provision", description, "-o", out]
    assert shell(*words, "--passphrase-file", secret).code == 0
    ended = shell(*words)
    assert ended.code == 2
    assert "passphrase" in ended.err
    assert "horse" not in ended.err


def test_a_revoked_site_is_out_of_the_next_roster(shell: Shell, kits: Path) -> None:
    ended = shell("kit", "revoke", "site-01", "-o", kits)
    assert "site-01 is revoked in roster 2" in ended.out
    from fedsecure.access.kit import read_kit

    (kits / "agg-1" / "roster.d").mkdir(mode=0o700)
    handed = kits / "agg-1" / "roster.d" / "2.json"
    handed.write_bytes((kits / "roster.json").read_bytes())
    handed.chmod(0o600)
    kit = read_kit(kits / "agg-1", SystemDisk(), lambda p: p.stat().st_mode)
    assert kit.roster.revoked == {"site-01"}


def test_a_renewed_certificate_is_another_file(shell: Shell, kits: Path) -> None:
    before = (kits / "agg-1" / "tls.crt").read_bytes()
    key = (kits / "agg-1" / "tls.key").read_bytes()
    assert shell("kit", "renew", "agg-1", "-o", kits).code == 0
    assert (kits / "agg-1" / "tls.crt").read_bytes() != before
    assert (kits / "agg-1" / "tls.key").read_bytes() == key


def test_a_site_has_no_certificate_to_renew(shell: Shell, kits: Path) -> None:
    ended = shell("kit", "renew", "site-01", "-o", kits)
    assert ended.code == 2
    assert "only aggregators and operators" in ended.err


def test_an_edited_policy_counts_once_it_is_signed_again(
    shell: Shell, kits: Path
) -> None:
    policy = kits / "site-01" / "policy.yaml"
    before = policy.with_name("policy.yaml.sig").read_bytes()
    policy.write_text(policy.read_text("utf-8") + "# reviewed\n", encoding="utf-8")
    assert shell("policy", "sign", kits / "site-01").code == 0
    assert policy.with_name("policy.yaml.sig").read_bytes() != before


def test_an_aggregator_has_no_policy_to_sign(shell: Shell, kits: Path) -> None:
    ended = shell("policy", "sign", kits / "agg-1")
    assert ended.code == 2
    assert "agg-1" in ended.err


def test_privacy_report_prints_what_each_run_spent(shell: Shell, kits: Path) -> None:
    from fedsecure.access.kit import read_kit
    from fedsecure.assembly.node import build_round, fingerprint
    from fedsecure.privacy.budget import Content

    kit = read_kit(kits / "site-01", SystemDisk(), lambda p: p.stat().st_mode)
    store = load("stores", "memory").create({})
    content = Content("digits", fingerprint(kit, b"rows"), 100)
    build_round(kit, content, store, kit.state).close()
    ended = shell("privacy", "report", "--kit", kits / "site-01")
    assert ended.code == 0, ended.err
    assert "digits" in ended.out
    assert "0.000" in ended.out


def test_privacy_report_is_a_sites_alone(shell: Shell, kits: Path) -> None:
    ended = shell("privacy", "report", "--kit", kits / "agg-1")
    assert ended.code == 2


def test_status_without_a_run_says_what_is_missing(shell: Shell, kits: Path) -> None:
    ended = shell("status", "--kit", kits / "agg-1")
    assert ended.code == 2
    assert "aggregator.json is missing" in ended.err


def test_status_says_who_leads_and_how_far_the_run_is(
    shell: Shell, kits: Path, tmp_path: Path
) -> None:
    lease = tmp_path / "lease"
    written = planned(shell, kits, tmp_path)
    assert written.code == 0, written.err
    engine: Engine = load("metadata", "embedded").create({"path": lease})
    engine.leases.acquire("agg-1", "127.0.0.1:9091", 30.0)
    ended = shell("status", "--kit", kits / "agg-1")
    assert ended.code == 0, ended.err
    assert "agg-1, term 1" in ended.out
    assert "0 of 4 rounds" in ended.out


def test_leader_is_paused_and_resumed_by_command(
    shell: Shell, kits: Path, tmp_path: Path
) -> None:
    planned(shell, kits, tmp_path)
    kit = kits / "agg-1"
    assert "agg-1 is paused" in shell("leader", "pause", kit).out
    assert re.search(r"paused here\s+yes", shell("leader", "show", kit).out)
    assert "may lead again" in shell("leader", "resume", kit).out
    assert re.search(r"paused here\s+no", shell("leader", "show", kit).out)


def test_only_the_leader_hands_over(shell: Shell, kits: Path, tmp_path: Path) -> None:
    planned(shell, kits, tmp_path)
    kit = kits / "agg-1"
    ended = shell("leader", "handover", kit)
    assert ended.code == 2
    assert "agg-1 does not lead now, nobody does" in " ".join(ended.err.split())
    engine: Engine = load("metadata", "embedded").create({"path": tmp_path / "lease"})
    engine.leases.acquire("agg-1", "127.0.0.1:9091", 30.0)
    assert "gives leadership up" in " ".join(
        shell("leader", "handover", kit).out.split()
    )


def test_a_key_is_rotated_at_an_aggregator_that_has_a_run(
    shell: Shell, kits: Path, tmp_path: Path
) -> None:
    assert shell("keys", "rotate", kits / "agg-1").code == 2
    planned(shell, kits, tmp_path)
    told = " ".join(shell("keys", "rotate", kits / "agg-1").out.split())
    assert "gets a new key before its next round" in told
    assert shell("keys", "rotate", kits / "site-01").code == 2


def planned(shell: Shell, kits: Path, tmp_path: Path) -> Ended:
    out = kits / "agg-1" / "aggregator.json"
    words = [f"federation.kits={kits}", "federation.sites=1", "federation.rounds=4"]
    words.append("privacy=none")  # one site alone shares no noise
    return shell("plan", "-o", out, "--folder", tmp_path, *words)


def test_plan_writes_the_run_that_aggregators_serve(
    shell: Shell, kits: Path, tmp_path: Path
) -> None:
    assert planned(shell, kits, tmp_path).code == 0
    values = json.loads((kits / "agg-1" / "aggregator.json").read_text("utf-8"))
    assert values["plan"]["sites"] == ["site-01"]
    assert values["plan"]["max_rows"] == 0
    assert values["lease"] == str(tmp_path / "lease")
    assert len(values["stores"]) == 3


def test_plan_never_overwrites_a_plan(shell: Shell, kits: Path, tmp_path: Path) -> None:
    planned(shell, kits, tmp_path)
    again = planned(shell, kits, tmp_path)
    assert again.code == 2
    assert "a run's plan never changes" in " ".join(again.err.split())


def test_plan_needs_kits(shell: Shell, tmp_path: Path) -> None:
    ended = shell("plan", "-o", tmp_path / "a.json")
    assert ended.code == 2
    assert "federation.kits=DIR" in ended.err


def test_a_run_is_certified_and_its_certificate_verifies(
    shell: Shell, quick: list[str], tmp_path: Path
) -> None:
    words = [*quick, "privacy=example_distributed", "privacy.noise_multiplier=4"]
    made = shell(*words, "privacy.target_epsilon=null", "data=breast_cancer")
    assert made.code == 0, made.err
    folder = made.out.split()[-1]
    issued = shell("privacy", "certificate", folder, "-o", tmp_path / "out")
    assert issued.code == 0, issued.err
    assert "against all other sites together" in issued.out
    file = tmp_path / "out" / "certificate.json"
    checked = shell("privacy", "certificate", file, "--verify")
    assert checked.code == 0, checked.err
    assert "signed by site site-01" in checked.out
    file.write_text(file.read_text("utf-8").replace("add_or_remove_one", "replace_one"))
    forged = shell("privacy", "certificate", file, "--verify")
    assert forged.code != 0
    assert "was changed" in forged.err


def test_a_run_without_privacy_is_certified_to_promise_nothing(
    shell: Shell, quick: list[str]
) -> None:
    folder = shell(*quick).out.split()[-1]
    issued = shell("privacy", "certificate", folder)
    assert issued.out.startswith("Nothing is promised about anybody's rows")
