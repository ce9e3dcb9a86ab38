"""What a malicious or mistaken aggregator could sign."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace

from fedsecure import ciphertext
from fedsecure.envelope import Envelope, Kind, Scope, parse, sign
from fedsecure.keys import SigningKey
from fedsecure.release import release_of
from fedsecure.running_sum import RunningSum
from fedsecure.trainer import JSON
from fedsecure.update import RoundId
from tests.fakes.federation import MAX_BYTES, RUN, Federation


def own_update(federation: Federation, site: str, number: int) -> Envelope:
    """Return what a site answered in a round, from its outbox."""
    kept = federation.sites[site].shelf().answer(number)
    assert kept is not None
    return parse(kept.outgoing.to_bytes(), MAX_BYTES)


def release_over(
    federation: Federation, sites: Sequence[str], number: int, signer: str = "agg-1"
) -> Envelope:
    """Return a release of a round that sums the updates of `sites` only."""
    updates = {site: own_update(federation, site, number) for site in sites}
    scope = updates[sites[0]].scope
    total = RunningSum(scope.key_id, max_summands=16)
    for update in updates.values():
        total.add(
            ciphertext.from_bytes(update.body, key_id=scope.key_id, max_summands=1)
        )
    body = ciphertext.to_bytes(total.total())
    round_id = RoundId(RUN, number)
    digests = {site: update.digest() for site, update in updates.items()}
    release = release_of(round_id, number - 1, digests, body)
    whole = Scope(round_id, "*", scope.key_id, scope.layout, scope.plan)
    return sign(
        Kind.RELEASE,
        whole,
        release.header(),
        body,
        signer=signer,
        key=federation.signing(signer),
    )


def altered(
    federation: Federation,
    data: bytes,
    *,
    scope: Mapping[str, object] | None = None,
    header: Mapping[str, JSON] | None = None,
    body: bytes | None = None,
    signer: str | None = None,
    key: SigningKey | None = None,
) -> bytes:
    """Return a message with some fields changed, signed again; by its signer's key."""
    old = parse(data, MAX_BYTES)
    name = signer or old.signer
    fields = {**json.loads(old.header), **(header or {})}
    return sign(
        Kind(old.kind),
        replace(old.scope, **(scope or {})),  # type: ignore[arg-type]
        fields,
        old.body if body is None else body,
        signer=name,
        key=key or federation.signing(name),
    ).to_bytes()


def code_of(answer: bytes) -> str:
    """Return why a site refuses; "" if it does not."""
    found = parse(answer, MAX_BYTES)
    if found.kind != Kind.REFUSAL:
        return ""
    return str(json.loads(found.header)["code"])
