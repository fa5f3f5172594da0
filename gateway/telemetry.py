"""Every metric of the hub, in one place, in base units. Labels are agencies, outcomes, classes and guards:
bounded, never about a person.
"""

from collections import Counter as Tally
from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from consent.decision import WITHHELD, WORDS, Decision


class DecisionCount:
    """What a batch decided, counted in passing and added to the metrics once."""

    def __init__(self) -> None:
        self.decisions: Tally[tuple[str, str]] = Tally()
        self.withheld: Tally[int] = Tally()  # sets of words: what they say is looked up once a batch
        self.guards: Tally[int] = Tally()

    def add(self, party: str, decision: Decision) -> None:
        """Counts one decision for *party*."""
        self.decisions[party, decision.outcome.value] += 1
        self.guards[decision.found.guards] += 1
        for _, held in decision.found.withheld:
            self.withheld[held] += 1


class Telemetry:
    """The hub's metrics on one *registry*."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        self.accepted = self._counter("isr_submissions", "Submissions accepted", "party", "type")
        self.rejected = self._counter("isr_submissions_rejected", "Inputs quarantined", "party", "code")
        self.unplaced = self._counter(
            "isr_fields_unplaced", "Native fields the canonical message has no place for", "party"
        )
        self.duplicates = self._counter(
            "isr_submissions_duplicate", "Submissions that had been carried before", "party"
        )
        self.decisions = self._counter("isr_decisions", "Decisions by recipient", "party", "outcome")
        self.withheld = self._counter("isr_withheld", "Data classes withheld", "data_class", "reason")
        self.guards = self._counter("isr_guards_held", "Refusals that nothing overrides", "guard")
        self.considered = self._counter(
            "isr_considered", "What people of the holder decided on", "holder", "ending"
        )
        self.overrides = self._counter("isr_overrides", "Break-glass, asked for or done", "party", "outcome")
        self.waiting = Gauge(
            "isr_waiting", "What waits for a person", ("what", "holder", "state"), registry=self.registry
        )
        self.deliveries = self._counter("isr_deliveries", "Deliveries ended", "party", "outcome")
        self.unproved = self._counter(
            "isr_deliveries_unproved", "Deliveries stopped because the ledger does not have them", "party"
        )
        self.decided_again = self._counter(
            "isr_decided_again",
            "Waiting deliveries decided again, by what became of them",
            "party",
            "outcome",
        )
        self.recalls = self._counter(
            "isr_recalls", "Disclosures recalled after later knowledge", "party", "reason"
        )
        self.recalls_open = Gauge(
            "isr_recalls_open", "Recalls that no privacy officer has settled", registry=self.registry
        )
        self.agreements = Gauge(
            "isr_agreements_in_force", "Agreements in force today", registry=self.registry
        )
        self.agreement_troubles = Gauge(
            "isr_agreements_troubles",
            "Files of agreements that are not what was approved, or cannot be read",
            registry=self.registry,
        )
        self.dead_letters = self._counter("isr_dead_letters", "Messages set aside", "queue", "code")
        self.batch = Histogram(
            "isr_carry_batch_size",
            "Submissions carried together",
            registry=self.registry,
            buckets=(1, 2, 5, 10, 20, 50, 100, 200, 400),
        )
        self.carry_seconds = Histogram("isr_carry_seconds", "Time to carry a batch", registry=self.registry)
        self.ledger_size = Gauge("isr_ledger_entries", "Entries in the ledger", registry=self.registry)
        self.witnessed = Gauge(
            "isr_ledger_witnessed_entries",
            "Entries under a checkpoint that enough witnesses cosigned",
            registry=self.registry,
        )
        self.witness_size = Gauge(
            "isr_witness_entries",
            "Entries under the newest checkpoint that this witness cosigned",
            ("witness",),
            registry=self.registry,
        )
        self.witness_answers = self._counter(
            "isr_witness_answers", "What asking a witness came to", "witness", "outcome"
        )
        self.queue_depth = Gauge("isr_queue_messages", "Messages waiting", ("queue",), registry=self.registry)

    def count(self, counted: DecisionCount) -> None:
        """Adds a batch's decisions, once they are committed."""
        for (party, outcome), number in counted.decisions.items():
            self.decisions.labels(party, outcome).inc(number)
        guards: Tally[str] = Tally()
        for held, number in counted.guards.items():
            guards.update(dict.fromkeys(WORDS.words(held), number))
        for guard, number in guards.items():
            self.guards.labels(guard).inc(number)
        withheld: Tally[tuple[str, str]] = Tally()
        for held, number in counted.withheld.items():
            withheld.update(dict.fromkeys(WITHHELD.words(held), number))
        for (name, reason), number in withheld.items():
            self.withheld.labels(name, reason).inc(number)

    def show_waiting(self, counts: Mapping[tuple[str, str, str], int]) -> None:
        """Sets what waits for people to *counts*: (what, holder, state) → number."""
        self.waiting.clear()
        for labels, number in counts.items():
            self.waiting.labels(*labels).set(number)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self.registry)
