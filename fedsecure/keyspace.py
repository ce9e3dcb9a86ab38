"""Where lease, journal and head lie in etcd, and transactions over those keys.

One key holds the highest term. Every transaction that writes compares it and writes it:
an acquisition and a write follow one another, and the second sees what the first did.
"""

from collections.abc import Mapping, Sequence
from urllib.parse import quote

from fedsecure.errors import ConfigurationError, StorageError
from fedsecure.etcdgateway import JSON, Found, Gateway, absent, below, found, get, put

FORMAT = b"1"


class Keys:
    """Where things lie below a prefix, and the transactions over them."""

    def __init__(self, gateway: Gateway, prefix: str) -> None:
        self.gateway = gateway
        self.prefix = prefix
        self.term = f"{prefix}term"
        self.leader = f"{prefix}leader"

    def transact(
        self,
        what: str,
        compare: Sequence[JSON],
        success: Sequence[JSON],
        failure: Sequence[JSON] = (),
    ) -> tuple[bool, dict[str, Found]]:
        """Run one transaction; return whether it wrote, and what it read."""
        body = {"compare": compare, "success": success, "failure": failure}
        answer = self.gateway.ask(what, "kv/txn", body, writes=bool(compare))
        return bool(answer.get("succeeded")), found(answer)

    def place(self, run: str, number: int, step: str, site: str) -> str:
        """Return the key of a step; there can be one."""
        return f"{self.journal(run)}{number:012d}/{step}/{quote(site, safe='')}"

    def journal(self, run: str) -> str:
        """Return where a run's entries lie."""
        return f"{self.prefix}journal/{quote(run, safe='')}/"

    def operation(self, operation: str) -> str:
        """Return the key that says which step an operation wrote."""
        return f"{self.prefix}operation/{quote(operation, safe='')}"

    def head(self, run: str) -> str:
        """Return the key of a run's head."""
        return f"{self.prefix}head/{quote(run, safe='')}"

    def fence(self, term: int) -> JSON:
        """Return the comparison that holds while no higher term is there."""
        return below(self.term, digits(term + 1))

    def raised(self, term: int) -> JSON:
        """Return the request that goes with every write: the term is the highest."""
        return put(self.term, digits(term))

    def highest(self, now: Mapping[str, Found]) -> int:
        """Return the highest term, as it was read.

        Raises
        ------
        StorageError
            It is gone: somebody deleted it, and with it the fence.
        """
        try:
            return int(now[self.term].value)
        except (LookupError, ValueError) as gone:
            raise StorageError(
                f"{self.gateway.cluster.shown}: {self.term} is gone, and every write "
                "is compared with it: restore the cluster from a snapshot"
            ) from gone


def digits(term: int) -> bytes:
    """Return a term as it is stored: etcd compares bytes, so all are equally long."""
    return f"{term:020d}".encode()


def bring_up(keys: Keys) -> None:
    """Make the keys, or see that they are of this version.

    Raises
    ------
    ConfigurationError
        They are of another version.
    """
    key = f"{keys.prefix}format"
    # Looked for first: a cluster whose quota is used up answers no transaction that
    # could write, and whoever only looks wants to see it.
    made, now = False, keys.transact("look for its keys", [], [get(key)])[1]
    if key not in now:
        made, now = keys.transact(
            "make its keys",
            [absent(key)],
            [put(key, FORMAT), put(keys.term, digits(0))],
            [get(key)],
        )
    kept = FORMAT if made or key not in now else now[key].value
    if kept != FORMAT:
        raise ConfigurationError(
            f"{keys.prefix} in {keys.gateway.cluster.shown} is of format "
            f"{kept[:20].decode(errors='replace')}, this version knows "
            f"{FORMAT.decode()}: upgrade this aggregator; another prefix is for "
            "another run only"
        )
