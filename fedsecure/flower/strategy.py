"""SecureFedAvg: FedAvg over sums nobody at the server can read, led by whoever may.

``start`` campaigns, leads when it holds the lease, stands by when it does not, and ends
when the run is complete, whoever completed it.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import Result, Strategy

from fedsecure.envelope import canonical
from fedsecure.errors import (
    ConfigurationError,
    Conflict,
    LeaseLost,
    StaleTerm,
    StorageError,
)
from fedsecure.flower.campaign import Campaign
from fedsecure.flower.carrier import Carrier
from fedsecure.flower.driver import RoundDriver
from fedsecure.flower.leader import Leader, Terms, Tools
from fedsecure.flower.post import Finder, Round, Sent, Timing, untold
from fedsecure.flower.vitals import Vitals
from fedsecure.metadata import Step
from fedsecure.update import Layout, flatten

log = logging.getLogger(__name__)


TROUBLES_ALLOWED = 5
"""Leaderships in a row that storage may end before the run gives up.

One that released a round begins the row anew."""


@dataclass(frozen=True, slots=True)
class Wire:
    """How the strategy uses a grid.

    Attributes
    ----------
    directory : callable
        Grid -> a callable that returns the node id of every site online.
    timing : Timing
    hands : int
        Answers held in memory at a time.
    sent : callable
        Told of each letter.
    aggregators : tuple of str
        All of the roster: those that stand by carry releases.
    carry_from : int
        Bytes from which on a release is carried.
    """

    directory: Finder
    timing: Timing = field(default_factory=Timing)
    hands: int = 4
    sent: Sent = untold
    aggregators: tuple[str, ...] = ()
    carry_from: int = 0


class SecureFedAvg(Strategy):
    """Encrypted, fenced federated averaging (McMahan et al. 2017) for Flower.

    Sites hold the model; the server sums ciphertexts and never sees it. So there is
    nothing for ``configure_train`` or ``aggregate_train`` to do: the rounds are driven
    by `RoundDriver`, which survives the death of its process.

    Parameters
    ----------
    terms : Terms
    tools : Tools
        Without a post: it belongs to the grid, and `start` makes it.
    campaign : Campaign
    wire : Wire
    vitals : Vitals
        What the campaign looks at; told here of the SuperLink and of steps.
    """

    def __init__(
        self,
        terms: Terms,
        tools: Callable[[Callable[[str], Round]], Tools],
        campaign: Campaign,
        wire: Wire,
        vitals: Vitals,
    ) -> None:
        self._vitals = vitals
        self._terms = terms
        self._tools = tools
        self._campaign = campaign
        self._wire = wire
        self._troubles = 0

    def start(
        self,
        grid: Grid,
        initial_arrays: ArrayRecord | None = None,
        num_rounds: int | None = None,
        timeout: float | None = None,
        train_config: ConfigRecord | None = None,
        evaluate_config: ConfigRecord | None = None,
        evaluate_fn: object = None,
    ) -> Result:
        """Take part in the run until it is complete; lead it while holding the lease.

        Parameters
        ----------
        grid : Grid
        initial_arrays : ArrayRecord, optional
            The first model. Without it the custodian site makes it.
        num_rounds, timeout : optional
            Rounds of the run, and seconds a round stays open; the plan's by default.
            `num_rounds` must be the plan's: sites signed up for that number.
        train_config, evaluate_config, evaluate_fn
            Must be None: sites take their settings from the signed plan, and the
            server cannot evaluate a model it cannot see.

        Returns
        -------
        Result
            Empty arrays (only sites hold the model), metrics by round.

        Raises
        ------
        ConfigurationError
            An argument that cannot be honoured.
        QuorumNotMet
            Too many rounds in a row found too few sites.
        """
        self._refuse_unusable(num_rounds, train_config, evaluate_config, evaluate_fn)
        if timeout is not None:
            self._terms = replace(self._terms, deadline=timeout)
        first = None if initial_arrays is None else _first_model(initial_arrays)
        tools = self._tools(self._post(grid))
        carrier = Carrier(
            self._terms, tools, self._wire.aggregators, self._wire.carry_from
        )
        self._vitals.watch(grid.get_node_ids)
        self._campaign.start()
        carrier.start(lambda: self._campaign.holder)
        tools.observer.note("standby", {"holder": tools.name})
        try:
            while not self._complete(tools):
                self._take_turn(tools, first)
        finally:
            carrier.stop()
            self._campaign.stop()
            self._vitals.rest()
        return self._result(tools)

    def _take_turn(self, tools: Tools, first: tuple[bytes, bytes] | None) -> None:
        self._vitals.step()
        term = self._campaign.wait(timeout=0.25)
        if term is not None:
            self._lead_once(term, tools, first)

    def _lead_once(
        self, term: int, tools: Tools, first: tuple[bytes, bytes] | None
    ) -> None:
        tools.observer.note("leader", {"term": term, "holder": tools.name})
        tools.ledger.append("lease.acquired", tools.name, term=term)
        leader = Leader(self._terms, tools, term, lambda: self._check(term))
        try:
            RoundDriver(leader, first).run()
        except (LeaseLost, StaleTerm, StorageError) as lost:
            # A leader that was paused meets others' objects before its lease's end. One
            # whose disk or server fails lets another try: every step is idempotent.
            if self._released(term, tools):
                self._troubles = 0
            if not isinstance(lost, Conflict) and self._leads(term, lost):
                self._troubles += 1
                if self._troubles > TROUBLES_ALLOWED:
                    raise
            log.warning("%s stands by: %s", tools.name, lost)
            tools.observer.note("lost", {"term": term, "reason": str(lost)})
            self._campaign.step_down(floor=getattr(lost, "seen", 0))
        else:
            self._troubles = 0

    def _released(self, term: int, tools: Tools) -> bool:
        """Return whether the leadership `term` released a round; False if unknown."""
        try:
            head = tools.journal.head(self._terms.run)
        except StorageError:
            return False
        return head is not None and head.term == term

    def _check(self, term: int) -> None:
        """Return only while this aggregator leads; who asks has made a step."""
        self._vitals.step()
        self._campaign.check(term)

    def _leads(self, term: int, error: Exception) -> bool:
        """Return whether an error met a leader that still leads: its own trouble."""
        if not isinstance(error, StorageError):
            return False
        try:
            self._campaign.check(term)
        except LeaseLost:
            return False
        return True

    def _post(self, grid: Grid) -> Callable[[str], Round]:
        wire, terms = self._wire, self._terms
        directory = wire.directory(grid)
        return lambda group: Round(
            grid,
            directory,
            group,
            terms.max_bytes,
            wire.timing,
            wire.hands,
            wire.sent,
        )

    def _complete(self, tools: Tools) -> bool:
        """Return whether the run is over; a silent engine is asked again later."""
        try:
            return self._is_complete(tools)
        except StorageError as silent:
            log.warning("%s cannot look how far the run is: %s", tools.name, silent)
            return False

    def _is_complete(self, tools: Tools) -> bool:
        head = tools.journal.head(self._terms.run)
        if head is None:
            return False
        entries = tools.journal.entries(self._terms.run, head.round)
        steps = {(e.round, e.step) for e in entries}
        last = max((n for n, _ in steps), default=0)
        done = last >= self._terms.rounds
        return done and (head.round, Step.PUBLISH) in steps

    def _result(self, tools: Tools) -> Result:
        result = Result()
        head = tools.journal.head(self._terms.run)
        if head is not None:
            rounds = MetricRecord({"rounds-released": head.round})
            result.train_metrics_clientapp[head.round] = rounds
        return result

    def _refuse_unusable(self, num_rounds: int | None, *unusable: object) -> None:
        if num_rounds is not None and num_rounds != self._terms.rounds:
            raise ConfigurationError(
                f"num_rounds={num_rounds}, the signed plan has {self._terms.rounds}"
            )
        if any(value is not None for value in unusable):
            raise ConfigurationError(
                "train_config, evaluate_config and evaluate_fn must be None: settings "
                "come from the signed plan, and the server never sees the model"
            )

    # --- Flower's abstract methods: there is nothing for the server to see ------------

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Refuse: rounds are driven by `start`."""
        raise _unused("configure_train")

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Refuse: sums are made from ciphertexts in `start`."""
        raise _unused("aggregate_train")

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Refuse: sites evaluate the incoming model in the same message."""
        raise _unused("configure_evaluate")

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Refuse: metrics arrive with the updates."""
        raise _unused("aggregate_evaluate")

    def summary(self) -> None:
        """Log what the run is."""
        log.info(
            "SecureFedAvg: run %s, %d rounds, %d sites, at least %d contributors",
            self._terms.run,
            self._terms.rounds,
            len(self._terms.sites),
            self._terms.min_contributors,
        )


def server_app(build: Callable[[Mapping[str, object]], SecureFedAvg]) -> ServerApp:
    """Return a ServerApp whose strategy `build` makes from the run's configuration."""
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        strategy = build(context.run_config)
        strategy.summary()
        strategy.start(grid)

    return app


def _first_model(arrays: ArrayRecord) -> tuple[bytes, bytes]:
    tensors = {name: array.numpy() for name, array in arrays.items()}
    layout = Layout.of(tensors)
    model = np.asarray(flatten(tensors), dtype="<f8")
    return canonical(layout.document()), model.tobytes()


def _unused(name: str) -> ConfigurationError:
    return ConfigurationError(f"SecureFedAvg.{name} is not used: call start()")
