"""SoftHSM's tokens for tests: in a folder of their own, PINs in files."""

import atexit
import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

MODULE = "/usr/lib/softhsm/libsofthsm2.so"
_TOOL = "/usr/bin/softhsm2-util"
PIN = "4321-a-pin"
TOKENS = 16
_home: list[Path] = []


@dataclass(frozen=True, slots=True)
class SoftToken:
    """One token; its objects lie in a folder that can be taken away.

    Attributes
    ----------
    label : str
    pin_file : Path
    folder : Path
    """

    label: str
    pin_file: Path
    folder: Path

    def settings(self, key: str = "checkpoints", **more: object) -> dict[str, object]:
        """Return what `create` of ``keks/pkcs11.py`` takes."""
        return {
            "module": MODULE,
            "token": self.label,
            "label": key,
            "pin_file": str(self.pin_file),
            **more,
        }

    def environment(self) -> Mapping[str, str]:
        """Return what a child process needs to find the token."""
        return {"SOFTHSM2_CONF": os.environ["SOFTHSM2_CONF"]}

    def take_away(self) -> None:
        """Pull the token out."""
        self.folder.rename(self.folder.with_suffix(".away"))

    def put_back(self) -> None:
        """Plug it in again."""
        self.folder.with_suffix(".away").rename(self.folder)


_tokens: list[SoftToken] = []


def shared_token() -> SoftToken:
    """Return a token that tests share: each makes keys of its own names in it."""
    _require()
    return _pool()[0]


def soft_token() -> SoftToken:
    """Return a token of one's own; skips where SoftHSM is not installed."""
    _require()
    made = _pool()
    if len(made) < 2:
        pytest.fail(f"the tests of one process took all {TOKENS} tokens: raise TOKENS")
    return made.pop()


def _require() -> None:
    if not Path(_TOOL).exists() or not Path(MODULE).exists():
        pytest.skip("SoftHSM is not installed: apt-get install softhsm2")
    pytest.importorskip("pkcs11", reason="the extra hsm is not installed")


def _pool() -> list[SoftToken]:
    """Return tokens made before the module is loaded: it looks for them only once."""
    if not _home:
        home = Path(tempfile.mkdtemp(prefix="fed-softhsm-"))
        _home.append(home)
        atexit.register(shutil.rmtree, home, ignore_errors=True)
        (home / "tokens").mkdir()
        (home / "softhsm2.conf").write_text(
            f"directories.tokendir = {home / 'tokens'}\nlog.level = ERROR\n"
        )
        os.environ["SOFTHSM2_CONF"] = str(home / "softhsm2.conf")
        _tokens.extend(_make(home) for _ in range(TOKENS))
    return _tokens


def _make(home: Path) -> SoftToken:
    label, before = f"t-{uuid.uuid4().hex[:12]}", set((home / "tokens").iterdir())
    command = [_TOOL, "--init-token", "--free", "--label", label, "--pin", PIN]
    subprocess.run(
        [*command, "--so-pin", "so-pin-87654321"], check=True, capture_output=True
    )
    (made,) = set((home / "tokens").iterdir()) - before
    pin_file = home / f"{label}.pin"
    pin_file.touch(0o600)
    pin_file.write_text(PIN + "\n")
    return SoftToken(label, pin_file, made)
