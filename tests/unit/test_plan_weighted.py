"""The rules of the strategies where weights move the traffic from outside, and the Service that from inside (ALB)."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule

from model.names import SLOTS, SlotName
from model.plan import Action, After, Plan, SlotPlan, StrategyName, plan
from model.release import Record
from tests.unit.test_plan import PAIRS, STEPS, STRATEGIES, TAGS, Cluster, Releases, changes, slot, wanted


def after(strategy: StrategyName, *tags: str) -> Record:
    record: Record | None = None
    for tag in tags:
        record = plan(record, wanted(tag), strategy, weighted=True).record
    assert record is not None
    return record


def test_every_slot_is_listed_and_the_live_one_has_all() -> None:
    released = plan(after("blueGreen", "1"), wanted("2"), "blueGreen", weighted=True)
    assert released.weights() == {"main": 0, "blue": 0, "green": 100, "canary": 0}


def test_a_canary_takes_its_part_from_the_live_slot() -> None:
    beside = plan(after("canary", "1"), wanted("1", canary="2"), "canary", weighted=True)
    assert beside.weights(30) == {"main": 70, "blue": 0, "green": 0, "canary": 30}
    aborted = plan(beside.record, wanted("1"), "canary", weighted=True)
    assert aborted.weights(30)["canary"] == 0, "there is no canary, whatever its weight would be"
    assert not [each for each in beside.slots if each.after_traffic], "it is ready before it gets weight"


def test_the_old_colour_is_touched_after_the_weights() -> None:
    released = plan(after("blueGreen", "1"), wanted("2"), "blueGreen", weighted=True)
    assert [(each.name, each.after_traffic) for each in released.slots] == [("green", False), ("blue", True)]
    tidied = plan(released.record, wanted("2"), "blueGreen", action="tidy", weighted=True)
    assert changes(tidied)["blue"] == ("park", "1")
    assert {each.name: each.after_traffic for each in tidied.slots} == {"green": False, "blue": True}


def test_a_rollback_moves_weights_and_starts_nothing() -> None:
    back = plan(after("blueGreen", "1", "2"), wanted("1"), "blueGreen", weighted=True)
    assert back.weights()["blue"] == 100
    assert back.live.content == after("blueGreen", "1").slots["blue"], "what is declared is what runs there"


def test_the_ingress_comes_first_only_where_none_knew_all_slots() -> None:
    first = plan(None, wanted("1"), "rolling", weighted=True)
    assert first.entry_first
    assert not plan(first.record, wanted("2"), "rolling", weighted=True).entry_first
    without = plan(None, wanted("1"), "rolling")
    assert not without.entry_first
    assert plan(without.record, wanted("1"), "rolling", weighted=True).entry_first, "it gets its first route"
    back = plan(first.record, wanted("1"), "rolling")
    assert back.record.weighted is None
    assert '"weighted"' not in back.record.to_annotation(), "records elsewhere stay as they are"


@given(strategy=STRATEGIES, tags=st.lists(TAGS, min_size=1, max_size=5), canary=st.integers(0, 100), has=st.booleans())
def test_weights_are_always_of_all_slots_and_100_in_sum(
    strategy: StrategyName, tags: list[str], canary: int, *, has: bool
) -> None:
    record = after(strategy, *tags)
    weights = plan(record, wanted("7", canary="8" if has else None), strategy, weighted=True).weights(canary)
    assert list(weights) == list(SLOTS)
    assert sum(weights.values()) == 100
    assert min(weights.values()) >= 0


@dataclass
class WeightedCluster(Cluster):
    """A cluster behind an ALB: pods become ready only in slots that the Ingress lists."""

    weights: dict[SlotName, int] = field(default_factory=dict[SlotName, int])

    def apply(self, given: Plan, *, sick: bool, canary: int = 0) -> Iterator[None]:
        """Do what an update does, in the component's order."""
        declared = {each.content.release.config.digest for each in given.slots if each.content.release.config}
        self.configs |= declared
        if given.entry_first:
            self.weights = given.weights(canary)
            yield
        for each in given.slots:
            if not each.after_traffic:
                yield from self._update(each, sick=sick)
        if not given.entry_first:
            self.weights = given.weights(canary)
            yield
        self.traffic, self.record = given.traffic, given.record
        yield
        for each in given.slots:
            if each.after_traffic:
                yield from self._update(each, sick=sick)
        for name in self.pods.keys() - {each.name for each in given.slots}:
            del self.pods[name]
            yield
        self.configs &= declared

    def _update(self, each: SlotPlan, *, sick: bool) -> Iterator[None]:
        for _ in super()._update(each, sick=sick):
            assert each.name in self.weights, f"pods of {each.name} are in no server group and never become ready"
            yield

    def without_config(self) -> set[str]:
        """Return also those that get requests from outside."""
        pods = {revision for revisions in self.behind().values() for revision in revisions}
        lacking = {each for each in pods if "/" in each and each.rsplit("/", 1)[1] not in self.configs}
        return super().without_config() | lacking

    def behind(self) -> dict[SlotName, set[str]]:
        """Return the ready pods of each slot that gets requests from outside."""
        return {name: self.pods.get(name, set()) for name, weight in self.weights.items() if weight}


class WeightedReleases(Releases):
    """The same sequences behind an ALB."""

    weighted = True
    cluster: WeightedCluster

    def new_cluster(self) -> Cluster:
        return WeightedCluster()

    @rule(strategy=STRATEGIES, pair=PAIRS)
    def another_strategy(self, strategy: StrategyName, pair: After) -> None:  # noqa: ARG002 - pairs are refused
        self.strategy, self.pair = strategy, "warm"

    @rule(weight=st.integers(1, 100))
    def another_canary_weight(self, weight: int) -> None:
        self.canary_weight = weight

    @rule(tag=TAGS)
    def deploy(self, tag: str) -> None:
        super().deploy(tag)
        revision = slot(tag, self.change, self.config).revision
        assert list(self.cluster.behind().values()) == [{revision}], "inside and outside meet the same release"

    def killed_between_the_movers(self, tag: str) -> None:
        """Another slot has the weight, and the Service with the record was not written."""
        given = plan(
            self.cluster.record, wanted(tag, self.change, config=self.config), self.strategy, now="t", weighted=True
        )
        if self.cluster.record and self.cluster.record.live == given.live.name:
            return
        for _ in self.cluster.apply(given, sick=False):
            self.always_served()
            if self.cluster.weights == given.weights():
                return

    @rule(tag=TAGS, other=TAGS, strategy=STRATEGIES)
    def killed_between_and_then_another_release(self, tag: str, other: str, strategy: StrategyName) -> None:
        self.killed_between_the_movers(tag)
        self.strategy = strategy
        self.deploy(other)

    @rule(tag=TAGS, other=TAGS)
    def killed_between_and_then_a_sick_one(self, tag: str, other: str) -> None:
        self.killed_between_the_movers(tag)
        self._run(other, sick=True)

    @rule(tag=TAGS, action=st.sampled_from(["restore", "tidy"]), steps=STEPS)
    def killed_between_and_then_put_right(self, tag: str, action: Action, steps: int) -> None:
        self.killed_between_the_movers(tag)
        self.leave_the_traffic(action, steps)

    @precondition(lambda self: self.cluster.record is not None)
    @invariant()
    def always_served(self, *, exactly_one: bool = False) -> None:
        super().always_served(exactly_one=exactly_one)
        if self.cluster.record is None:
            return
        assert sum(self.cluster.weights.values()) == 100
        for name, pods in self.cluster.behind().items():
            assert pods, f"{name} gets requests and has no ready pod: {self.cluster}"


TestWeightedReleases = WeightedReleases.TestCase
TestWeightedReleases.settings = settings(max_examples=300, stateful_step_count=30, deadline=None)


def test_the_model_sees_a_slot_that_is_emptied_while_it_has_weight() -> None:
    cluster = WeightedCluster(pods={"blue": {"r1"}}, weights={"green": 100}, record=after("blueGreen", "1"))
    cluster.traffic = {"release": "r1"}
    machine = WeightedReleases()
    machine.cluster = cluster
    with pytest.raises(AssertionError, match="green gets requests and has no ready pod"):
        machine.always_served()
