"""Issuing a certificate: a signed file for programs, and a page for people."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from fedsecure.access.roster import Role
from fedsecure.certificate.audited import read_audit
from fedsecure.certificate.check import check
from fedsecure.certificate.issuer import Issuer, issuer_of_kit, kept_issuer
from fedsecure.certificate.page import certificate_page
from fedsecure.certificate.signed import (
    MAX_BYTES,
    Certificate,
    read_certificate,
    signed,
)
from fedsecure.certificate.statement import statement
from fedsecure.certificate.traces import Traces, traces_of_folder, traces_of_kit
from fedsecure.disk import SystemDisk
from fedsecure.errors import ConfigurationError, NotFound, VerificationError
from fedsecure.update import JSON

FILE, PAGE = "certificate.json", "certificate.html"


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate as it lies on the disk.

    Attributes
    ----------
    file, page : Path
    said : tuple of str
        What it promises, a line each.
    """

    file: Path
    page: Path
    said: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Checked:
    """A certificate that was found in order.

    Attributes
    ----------
    certificate : Certificate
    said : tuple of str
        What it promises, a line each.
    """

    certificate: Certificate
    said: tuple[str, ...]


def issue(
    run: Path,
    when: datetime,
    *,
    kit: Path | None = None,
    audit: Path | None = None,
    out: Path | None = None,
) -> Issued:
    """Certify a run, and write file and page.

    Parameters
    ----------
    run : Path
        A run's folder; with a site's kit, the name of a run that it took part in.
    when : datetime
        In UTC.
    kit : Path or None
        Of who issues; None: the member that a simulated run left in its folder.
    audit : Path or None
        An ``audit.json``.
    out : Path or None
        A folder, made if missing; None: the run's, or the kit's state.

    Raises
    ------
    ConfigurationError
        No run, nobody to sign, or no place to write.
    LedgerCorrupt
        A ledger does not verify: nothing is certified.
    """
    issuer = kept_issuer(run) if kit is None else issuer_of_kit(kit)
    traces, place = _traces(run, kit, issuer)
    return certify(traces, issuer, when, out or place, audit)


def certify(
    traces: Traces,
    issuer: Issuer,
    when: datetime,
    out: Path,
    audit: Path | None = None,
) -> Issued:
    """Write the certificate of a run whose traces are at hand; see `issue`."""
    found = None if audit is None else read_audit(audit)
    body = statement(traces, issuer, when, found)
    data = signed(body, issuer.key)
    signature = str(json.loads(data)["signature"])
    page = certificate_page(json.loads(data)["certificate"], signature)
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / FILE).write_bytes(data)
        (out / PAGE).write_text(page, encoding="utf-8")
    except OSError as bad:
        raise ConfigurationError(f"--out {out}: {bad.strerror}") from bad
    return Issued(out / FILE, out / PAGE, _said(body))


def verify(path: Path, kit: Path | None = None) -> Checked:
    """Return a certificate whose signature holds and whose figures follow.

    Parameters
    ----------
    path : Path
        A certificate, or the folder it lies in.
    kit : Path or None
        Of a reader: the certificate must be of its federation.

    Raises
    ------
    VerificationError
        It was changed, is not a member's, or states other figures than its events cost.
    ConfigurationError
        No such file, or no kit.
    """
    file = path / FILE if path.is_dir() else path
    try:
        data = SystemDisk().read(file, MAX_BYTES)
    except NotFound as missing:
        raise ConfigurationError(f"{file}: no such certificate") from missing
    certificate = read_certificate(data)
    if kit is not None:
        own, other = issuer_of_kit(kit).roster, certificate.roster
        if own.federation != other.federation:
            raise VerificationError(
                f"{path} is of federation {other.federation[:16]}, {kit} of "
                f"{own.federation[:16]}"
            )
    check(certificate)
    return Checked(certificate, _said(certificate.body))


def _traces(run: Path, kit: Path | None, issuer: Issuer) -> tuple[Traces, Path]:
    if kit is None or run.is_dir():
        return traces_of_folder(run, issuer.roster), run
    if issuer.role != Role.SITE:
        raise ConfigurationError(
            f"{run} is no folder, and {issuer.role} {issuer.name} keeps no plan of a "
            "run: pass the run's folder, or a site's kit"
        )
    found = traces_of_kit(kit.absolute(), str(run), issuer.name, issuer.roster)
    return found, kit / "state"


def _said(body: Mapping[str, JSON]) -> tuple[str, ...]:
    promise, made = body["promise"], body["epsilons"]
    if not isinstance(promise, dict) or not isinstance(made, list):
        raise VerificationError("certificate has no promise and no epsilons")
    if not made:
        return (str(promise["said"]),)
    relation = str(promise["relation"]).replace("_", "-")
    about = f"δ {float(str(promise['delta'])):g}, one {promise['unit']}, {relation}"
    return tuple(
        f"ε {float(str(row['epsilon'])):.3f} against {row['against']} ({about}, "
        f"{row['accountant']}; nominal PLD {float(str(row['nominal_pld'])):.3f})"
        for row in made
        if isinstance(row, dict)
    )
