"""Hydra's overrides become one checked configuration."""

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from io import StringIO
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import (
    HydraException,
    MissingConfigException,
    OverrideParseException,
)
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from ruamel.yaml import YAML

from fedsecure.config import RunConfig
from fedsecure.errors import ConfigurationError
from fedsecure.update import JSON

_UNKNOWN = re.compile(r"Could not override '([^']*)'")


def conf_dir() -> Path:
    """Return the folder of the groups: the package's, or the checkout's."""
    packaged = Path(str(files("fedsecure") / "conf"))
    return packaged if packaged.is_dir() else Path(__file__).parents[1] / "conf"


def composed(overrides: Sequence[str]) -> RunConfig:
    """Return the configuration that overrides describe.

    Raises
    ------
    ConfigurationError
        Unknown group, option or key, or a value out of its bounds.
    """
    try:
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            found = compose("config", overrides=list(overrides))
        values = OmegaConf.to_container(found, resolve=True)
    except (HydraException, OmegaConfBaseException) as bad:
        raise ConfigurationError(_sentence(bad)) from bad
    if not isinstance(values, dict):
        raise ConfigurationError("the configuration is not a mapping")
    values.pop("experiment", None)
    return RunConfig.parse({str(k): v for k, v in values.items()})


def swept(overrides: Sequence[str]) -> list[list[str]]:
    """Return every combination of comma-separated override values, Hydra's way.

    Raises
    ------
    ConfigurationError
        An override cannot be read.
    """
    try:
        parsed = OverridesParser.create().parse_overrides(list(overrides))
        return [list(job) for job in BasicSweeper.split_arguments(parsed, None)[0]]
    except HydraException as bad:
        raise ConfigurationError(_sentence(bad)) from bad


def shown(config: RunConfig) -> str:
    """Return the checked configuration as YAML."""
    text, yaml = StringIO(), YAML(typ="safe")
    yaml.default_flow_style = False
    yaml.dump(config.document(), text)
    return text.getvalue()


def _sentence(bad: Exception) -> str:
    """Say in one sentence what Hydra does not take, and what it would."""
    if isinstance(bad, OverrideParseException):
        return f"override {bad.override!r} cannot be read: write key=value, in quotes"
    if isinstance(bad, MissingConfigException) and bad.options:
        group, _, option = str(bad.missing_cfg_file).rpartition("/")
        return f"{group}={option}: choose one of {', '.join(bad.options)}"
    unknown = _UNKNOWN.search(str(bad))
    if unknown:
        return f"unknown key {unknown[1]!r}{_hint(unknown[1])}"
    return f"{str(bad).strip().splitlines()[0]} (see fedsecure run --help)"


def _hint(name: str) -> str:
    known = list(_keys(RunConfig().document()))
    same_end = [key for key in known if key.rpartition(".")[2] == name]
    close = same_end or difflib.get_close_matches(name, known, n=1)
    if close:
        return f"; did you mean {' or '.join(close)}?"
    return "; `fedsecure run --cfg job` prints all keys"


def _keys(section: Mapping[str, JSON], above: str = "") -> Iterator[str]:
    for name, value in section.items():
        yield f"{above}{name}"
        if isinstance(value, dict):
            yield from _keys(value, f"{above}{name}.")
