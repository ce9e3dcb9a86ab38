"""A site's budget under the policy of the moment: a changed file acts at once.

Old spending stays where it is, whatever the new ceiling says.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

from fedsecure import registry
from fedsecure.access.policy import SitePolicy
from fedsecure.access.privacyrules import strictest
from fedsecure.accounting import Relation
from fedsecure.errors import ConfigurationError, PolicyRefused
from fedsecure.ledger import Ledger
from fedsecure.privacy.budget import Budget, Ceiling, Content
from fedsecure.privacy.plan import AccountantFactory


class PolicyBudgets(Mapping[str, Budget]):
    """The budget of a site's one data set, opened again when the policy changed.

    Parameters
    ----------
    policy : callable
        Returns the verified policy as it is now; PolicyRefused if there is none.
    content : Content
    ledger : Ledger

    Raises
    ------
    PolicyRefused
        No valid policy, none of its projects may use the data set, or the data set has
        other rows than before and the policy refuses that.
    """

    def __init__(
        self, policy: Callable[[], SitePolicy], content: Content, ledger: Ledger
    ) -> None:
        self._policy, self._content, self._ledger = policy, content, ledger
        found = policy()
        self._under, self._budget = found.digest, _open(found, content, ledger)

    def __getitem__(self, dataset: str) -> Budget:
        """Return the budget under the policy of the moment; KeyError: another set's."""
        if dataset != self._content.dataset:
            raise KeyError(dataset)
        policy = self._policy()
        if policy.digest != self._under:
            self._budget = _open(policy, self._content, self._ledger)
            self._under = policy.digest
        return self._budget

    def __iter__(self) -> Iterator[str]:
        """Yield the data set's id."""
        yield self._content.dataset

    def __len__(self) -> int:
        """Return 1."""
        return 1


def _open(policy: SitePolicy, content: Content, ledger: Ledger) -> Budget:
    """Open the budget under the strictest ceiling of the policy's projects."""
    rules = [p for p in policy.projects.values() if content.dataset in p.datasets]
    if not rules:
        raise PolicyRefused(f"policy: no project may use data set {content.dataset!r}")
    if content.rows < 1:
        raise ConfigurationError(
            f"data set {content.dataset!r} has {content.rows} rows to train on, at "
            "least 1 is needed: give the site rows or leave it out of the run"
        )
    held = strictest([rule.privacy for rule in rules])
    ceiling = Ceiling(
        held.max_epsilon,
        # A delta the rows do not allow is refused per plan; the ledger's is tighter.
        min(held.delta, 0.5 / content.counted(held.unit)[0]),
        Relation(held.relation),
        policy.digest,
        held.per_run_epsilon,
        held.content_changes == "inherit",
        held.unit,
    )
    return Budget.open(ledger, content, ceiling, _guards(held.guards))


def _guards(names: Sequence[str]) -> tuple[AccountantFactory, ...]:
    return tuple(registry.load("accounting", name).create for name in names)
