"""The rules of the strategies: single steps, and any sequence of releases, failures, rollbacks and changes."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from model.names import SlotName
from model.plan import Action, After, CanaryWish, Plan, SlotPlan, StrategyName, Wanted, plan
from model.release import ConfigRef, Record, Release, Slot


def slot(tag: str, change: str = "", config: ConfigRef | None = None) -> Slot:
    """Return a slot's content; ``change`` stands for all else that reaches a pod."""
    content = f"/{config.digest}" if config else ""
    return Slot(release=Release(tag=tag, config=config), revision=f"r{tag}{change}{content}")


def wanted(tag: str, change: str = "", canary: str | None = None, config: ConfigRef | None = None) -> Wanted:
    return Wanted(slot=slot(tag, change, config), canary=slot(canary, "", config) if canary else None)


def at(commit: str, digest: str) -> ConfigRef:
    """Return a configuration as it was at a commit."""
    return ConfigRef(revision=commit, digest=digest)


def after(strategy: StrategyName, *tags: str, pair: After = "warm") -> Record:
    """Return the record after releases of these tags, one after the other."""
    record: Record | None = None
    for tag in tags:
        record = plan(record, wanted(tag), strategy, pair).record
    assert record is not None
    return record


def changes(given: Plan) -> dict[str, tuple[str, str]]:
    return {each.name: (each.change, each.content.release.tag) for each in given.slots}


def test_rolling_stays_in_one_slot_that_the_service_follows() -> None:
    given = plan(after("rolling", "1"), wanted("2"), "rolling")
    assert changes(given) == {"main": ("declare", "2")}
    assert given.traffic == {"slot": "main"}
    assert given.moves


def test_blue_green_takes_the_idle_colour_and_leaves_the_other_untouched() -> None:
    given = plan(after("blueGreen", "1"), wanted("2"), "blueGreen")
    assert changes(given) == {"green": ("declare", "2"), "blue": ("keep", "1")}
    assert given.record.live == "green"
    assert given.traffic == {"release": "r2"}
    assert given.live.starting


def test_a_rollback_takes_warm_pods_as_they_are_whatever_the_file_makes_of_their_release_now() -> None:
    record = after("blueGreen", "1", "2")
    back = wanted("1", "another port")
    given = plan(record, back, "blueGreen", returns_to=Release(tag="1"))
    assert changes(given) == {"blue": ("keep", "1"), "green": ("keep", "2")}
    assert (given.moves, given.revives, given.traffic) == (True, True, {"release": "r1"})
    assert given.record.slots["blue"].revision == "r1"
    # A plain run, or pods that were scaled down, get what the file says.
    assert changes(plan(record, back, "blueGreen"))["blue"] == ("declare", "1")
    parked = plan(record, wanted("2"), "blueGreen", action="tidy").record
    assert changes(plan(parked, back, "blueGreen", returns_to=Release(tag="1")))["blue"] == ("declare", "1")
    # A password that was changed is the right one for every release.
    changed = Wanted(slot=back.slot.model_copy(update={"secrets": "new"}))
    assert changes(plan(record, changed, "blueGreen", returns_to=Release(tag="1")))["blue"] == ("declare", "1")
    # What the file makes of the release may have another configuration: it goes back to the one that ran.
    config = wanted("1", "", config=at("c", "d"))
    assert changes(plan(record, config, "blueGreen", returns_to=Release(tag="1")))["blue"] == ("keep", "1")
    # The file's change is a release of its own afterwards.
    later = plan(given.record, back, "blueGreen")
    assert (later.moves, later.live.name, later.live.content.revision) == (True, "green", "r1another port")


def test_a_pair_whose_second_half_failed_is_whole_before_it_gets_the_traffic_back() -> None:
    """The live colour was touched: it is the half that is upgraded last."""
    for record in (after("blueGreen", "1", "2", pair="both"), after("blueGreen", "1")):
        back, live = wanted(record.release.tag), record.live
        restored = plan(record, back, "blueGreen", "both", action="restore", touched=[live])
        order = {each.name: (each.change, each.after_traffic) for each in restored.slots}
        assert order.pop(live) == ("declare", False)
        assert set(order.values()) <= {("declare", True)}
        # What failed in its first half has not touched it, and it stays as it is.
        assert changes(plan(record, back, "blueGreen", "both", action="restore"))[live] == ("keep", record.release.tag)


def test_configurations_of_one_tag_do_not_make_a_record_forget_the_others() -> None:
    record = after("rolling", "1", "2")
    for number in range(12):
        record = plan(record, wanted("2", config=at(f"c{number}", f"d{number}")), "rolling").record
    assert [each.tag for each in record.history] == ["2"] * 9 + ["1"]
    assert [each.config.digest for each in record.history if each.config][:2] == ["d11", "d10"]
    assert record.supersedes(Release(tag="1"))


def test_a_colour_that_takes_over_for_another_file_serves_since_now() -> None:
    record = plan(None, wanted("1"), "blueGreen", now="then").record
    moved = plan(record, wanted("1", "another file"), "blueGreen", now="now").record
    assert (moved.live, moved.since, record.since) == ("green", "now", "then")
    assert plan(moved, wanted("1", "another file"), "blueGreen", now="later").record.since == "now"


def test_a_rollback_to_the_warm_colour_only_moves_the_traffic() -> None:
    record = after("blueGreen", "1", "2")
    given = plan(record, wanted("1"), "blueGreen")
    assert given.record.live == "blue"
    assert given.live.content == record.slots["blue"], "what is declared is what runs there"
    assert changes(given)["green"] == ("keep", "2")


def test_a_third_release_takes_the_place_of_the_first() -> None:
    assert changes(plan(after("blueGreen", "1", "2"), wanted("3"), "blueGreen")) == {
        "blue": ("declare", "3"), "green": ("keep", "2"),
    }  # fmt: skip


def test_a_change_of_configuration_alone_is_a_release_of_its_own() -> None:
    given = plan(after("blueGreen", "1"), wanted("1", "changed"), "blueGreen")
    assert given.record.live == "green"
    assert given.moves
    assert given.record.history == (Release(tag="1"),)


@pytest.mark.parametrize("strategy", ["rolling", "blueGreen", "canary"])
def test_another_content_of_the_configuration_is_a_release(strategy: StrategyName) -> None:
    first = plan(None, wanted("1", config=at("a", "x")), strategy).record
    given = plan(first, wanted("1", config=at("b", "y")), strategy, now="later")
    assert given.moves
    assert [release.config for release in given.record.history] == [at("b", "y"), at("a", "x")]
    assert given.record.since == "later"


@pytest.mark.parametrize("strategy", ["rolling", "blueGreen", "canary"])
def test_another_commit_with_the_same_content_changes_nothing(strategy: StrategyName) -> None:
    canary = "2" if strategy == "canary" else None
    first = plan(None, wanted("1", canary=canary, config=at("a", "x")), strategy).record
    given = plan(first, wanted("1", canary=canary, config=at("b", "x")), strategy, now="later")
    assert given.record.to_annotation() == first.to_annotation()
    assert not given.moves


def test_a_rollback_of_the_configuration_to_the_warm_colour_only_moves_the_traffic() -> None:
    first = plan(None, wanted("1", config=at("a", "x")), "blueGreen").record
    second = plan(first, wanted("1", config=at("b", "y")), "blueGreen").record
    given = plan(second, wanted("1", config=at("a", "x")), "blueGreen")
    assert given.record.live == "blue"
    assert given.live.content == second.slots["blue"]


@pytest.mark.parametrize("strategy", ["rolling", "blueGreen", "canary"])
def test_what_runs_already_changes_nothing(strategy: StrategyName) -> None:
    record = after(strategy, "1", "2")
    given = plan(record, wanted("2"), strategy, now="later")
    assert given.record == record
    assert not given.moves
    assert given.live.change == "declare", "the number of pods may change"


def test_a_pair_is_upgraded_one_half_before_and_one_after_the_traffic() -> None:
    record = after("blueGreen", "1", pair="both")
    given = plan(record, wanted("2"), "blueGreen", "both")
    first, second = given.slots
    assert (first.name, second.name) == ("green", "blue")
    assert (first.after_traffic, second.after_traffic) == (False, True)
    assert given.record.live == "green"
    assert first.content == second.content


def test_a_single_colour_becomes_a_pair_by_way_of_the_other() -> None:
    first, second = plan(after("blueGreen", "1"), wanted("2"), "blueGreen", "both").slots
    assert (first.name, second.name) == ("green", "blue"), "blue has all the traffic until green is ready"


def test_the_time_is_that_of_the_last_change() -> None:
    record = plan(None, wanted("1"), "rolling", now="first").record
    assert record.since == "first"
    assert plan(record, wanted("2"), "rolling", now="second").record.since == "second"


def test_another_strategy_waits_for_the_next_release() -> None:
    record = after("rolling", "1")
    assert changes(plan(record, wanted("1"), "blueGreen")) == {"main": ("declare", "1")}
    given = plan(record, wanted("2"), "blueGreen")
    assert changes(given) == {"blue": ("declare", "2"), "main": ("keep", "1")}
    back = plan(given.record, wanted("3"), "rolling")
    assert changes(back) == {"main": ("declare", "3")}
    assert back.traffic == {"slot": "main"}


def test_a_canary_lives_beside_the_stable_version() -> None:
    record = after("canary", "1")
    given = plan(record, wanted("1", canary="2"), "canary")
    assert changes(given) == {"main": ("declare", "1"), "canary": ("declare", "2")}
    assert given.record.history == (Release(tag="1"),)
    promoted = plan(given.record, wanted("2"), "canary")
    assert changes(promoted) == {"main": ("declare", "2")}


def test_tidying_parks_what_gets_no_traffic() -> None:
    given = plan(after("blueGreen", "1", "2"), wanted("2"), "blueGreen", action="tidy")
    assert changes(given) == {"blue": ("park", "1"), "green": ("keep", "2")}
    assert not given.record.slots["blue"].warm
    again = plan(given.record, wanted("2"), "blueGreen")
    assert changes(again)["blue"] == ("park", "1"), "it stays without pods"
    back = plan(given.record, wanted("1"), "blueGreen")
    assert changes(back)["blue"] == ("declare", "1")
    assert back.live.starting
    assert back.record.slots["blue"].warm


def test_tidying_leaves_a_pair_alone() -> None:
    record = after("blueGreen", "1", "2", pair="both")
    assert {each.change for each in plan(record, wanted("2"), "blueGreen", "both", action="tidy").slots} == {"keep"}


def test_restoring_declares_what_the_record_says_of_the_idle_colour() -> None:
    given = plan(after("blueGreen", "1", "2"), wanted("3"), "blueGreen", action="restore")
    assert changes(given) == {"blue": ("declare", "1"), "green": ("keep", "2")}
    assert given.record == after("blueGreen", "1", "2")


@pytest.mark.parametrize("strategy", ["rolling", "canary"])
def test_restoring_declares_the_recorded_release_where_it_is_upgraded_in_its_place(strategy: StrategyName) -> None:
    given = plan(after(strategy, "1"), wanted("2"), strategy, action="restore")
    assert changes(given) == {"main": ("declare", "1")}
    assert given.record == after(strategy, "1")


def test_a_canary_wish_is_checked() -> None:
    with pytest.raises(ValueError, match="less than or equal to 100"):
        CanaryWish(tag="1", weight=101)


@dataclass
class Cluster:
    """Ready pods by slot and revision, and what the Service follows. Pods that never become ready are left out."""

    pods: dict[SlotName, set[str]] = field(default_factory=dict[SlotName, set[str]])
    traffic: dict[str, str] = field(default_factory=dict[str, str])
    record: Record | None = None
    configs: set[str] = field(default_factory=set[str])
    """Contents whose ConfigMaps are there."""

    def apply(self, given: Plan, *, sick: bool, canary: int = 0) -> Iterator[None]:  # noqa: ARG002 - for weights
        """Do what an update does, yielding after each step; a sick release ends it where its pods stay unready."""
        declared = {each.content.release.config.digest for each in given.slots if each.content.release.config}
        self.configs |= declared
        for each in given.slots:
            if not each.after_traffic:
                yield from self._update(each, sick=sick)
        self.traffic, self.record = given.traffic, given.record
        yield
        for each in given.slots:
            if each.after_traffic:
                yield from self._update(each, sick=sick)
        for name in self.pods.keys() - {each.name for each in given.slots}:
            del self.pods[name]
            yield
        # What is not declared any more goes last, and only when all else has gone well.
        self.configs &= declared

    def without_config(self) -> set[str]:
        """Return the revisions of pods that could not be started again: of those that serve, and of recorded slots."""
        recorded = {slot.revision for slot in self.record.slots.values()} if self.record else set[str]()
        pods = {revision for revisions in self.pods.values() for revision in revisions} & (recorded | self.serving())
        return {each for each in pods if "/" in each and each.rsplit("/", 1)[1] not in self.configs}

    def _update(self, each: SlotPlan, *, sick: bool) -> Iterator[None]:
        if each.change == "park":
            self.pods[each.name] = set()
            yield
            return
        if each.change == "keep" and each.name in self.pods:
            return
        before, new = self.pods.get(each.name, set()), each.content.revision
        if before == {new}:
            return
        if sick and each.change == "declare":
            self.pods[each.name] = before
            raise SickError
        for pods in (before | {new}, {new}):
            self.pods[each.name] = pods
            yield

    def touched(self) -> list[SlotName]:
        """Return the slots that are not as the record says."""
        slots = self.record.slots.items() if self.record else ()
        return [name for name, slot in slots if self.pods.get(name) != ({slot.revision} if slot.warm else set())]

    def serving(self) -> set[str]:
        """Return the revisions of the ready pods that get requests."""
        ((label, value),) = self.traffic.items()
        if label == "slot":
            return self.pods.get("main", set()) if value == "main" else set()
        return {revision for pods in self.pods.values() for revision in pods if revision == value}


class SickError(Exception):
    """A release whose pods don't become ready."""


TAGS = st.sampled_from("123456")
CHANGES = st.sampled_from(["", "x", "y"])
STRATEGIES = st.sampled_from(["rolling", "blueGreen", "canary"])
PAIRS = st.sampled_from(["warm", "both"])
COMMITS = st.sampled_from("abcdef")
CONTENTS = st.sampled_from(["", "x", "y", "z"])
STEPS = st.integers(0, 12)


class Releases(RuleBasedStateMachine):
    """Any sequence of what people, pipelines and accidents do to one project."""

    weighted = False
    """Whether the traffic from outside is moved by weights."""

    def __init__(self) -> None:
        super().__init__()
        self.cluster = self.new_cluster()
        self.strategy: StrategyName = "rolling"
        self.pair: After = "warm"
        self.change = ""
        self.config: ConfigRef | None = None
        self.canary_weight = 0

    def new_cluster(self) -> Cluster:
        """Return a cluster with nothing in it."""
        return Cluster()

    def _run(
        self,
        tag: str,
        *,
        sick: bool = False,
        steps: int = 100,
        action: Action = "release",
        returns_to: Release | None = None,
        **more: Any,
    ) -> bool:
        """Return whether an update came to its end; it may be killed after some steps, or be sick."""
        given = plan(
            self.cluster.record,
            wanted(tag, self.change, config=self.config, **more),
            self.strategy,
            self.pair,
            action=action,
            now="t",
            weighted=self.weighted,
            returns_to=returns_to,
            touched=self.cluster.touched(),
        )
        was_blue_green = "release" in self.cluster.traffic
        try:
            for number, _ in enumerate(self.cluster.apply(given, sick=sick, canary=self.canary_weight)):
                self.always_served(exactly_one=was_blue_green and "release" in given.traffic)
                if number == steps:
                    return False
        except SickError:
            return False
        return True

    @initialize(strategy=STRATEGIES, pair=PAIRS)
    def first(self, strategy: StrategyName, pair: After) -> None:
        self.another_strategy(strategy, pair)
        self.cluster.traffic = {"slot": "nobody yet"}
        given = plan(None, wanted("0"), strategy, self.pair, now="t", weighted=self.weighted)
        for _ in self.cluster.apply(given, sick=False):
            pass

    @rule(strategy=STRATEGIES, pair=PAIRS)
    def another_strategy(self, strategy: StrategyName, pair: After) -> None:
        self.strategy, self.pair = strategy, pair

    @rule(strategy=STRATEGIES, pair=PAIRS, tag=TAGS)
    def deploy_by_another_strategy(self, strategy: StrategyName, pair: After, tag: str) -> None:
        self.another_strategy(strategy, pair)
        self.deploy(tag)

    @rule(change=CHANGES)
    def another_configuration(self, change: str) -> None:
        self.change = change

    @rule(commit=COMMITS, content=CONTENTS)
    def another_commit(self, commit: str, content: str) -> None:
        self.config = at(commit, content) if content else None

    @rule(commit=COMMITS)
    def the_same_content_at_another_commit(self, commit: str) -> None:
        assert self.cluster.record is not None
        before = self.cluster.record
        self.config = before.release.config
        self.deploy(before.release.tag)
        before = self.cluster.record
        self.config = self.config and at(commit, self.config.digest)
        self.deploy(before.release.tag)
        assert self.cluster.record.to_annotation() == before.to_annotation()

    @rule(tag=TAGS)
    def deploy(self, tag: str) -> None:
        assert self._run(tag)
        assert self.cluster.serving() == {slot(tag, self.change, self.config).revision}
        assert self.cluster.record is not None
        assert self.cluster.record.release.tag == tag

    @rule(tag=TAGS, steps=STEPS)
    def deploy_killed(self, tag: str, steps: int) -> None:
        self._run(tag, steps=steps)

    @rule(tag=TAGS)
    def deploy_sick(self, tag: str) -> None:
        self._run(tag, sick=True)

    @rule(back=st.integers(1, 3))
    def rollback(self, back: int) -> None:
        assert self.cluster.record is not None
        history = self.cluster.record.history
        if len(history) > back:
            self.config = history[back].config
            self.deploy(history[back].tag)
            assert self.cluster.record.release == history[back]

    @rule(back=st.integers(1, 3), change=CHANGES, steps=STEPS)
    def rollback_although_the_file_has_changed(self, back: int, change: str, steps: int) -> None:
        record = self.cluster.record
        assert record is not None
        self.change = change
        if len(record.history) <= back:
            return
        returns_to = record.history[back]
        self.config = returns_to.config
        known: dict[SlotName, set[str]] = {
            name: {slot.revision} if slot.warm else set[str]() for name, slot in record.slots.items()
        }
        # As the command sees it before: a release that was cut off may have taken the colour that is warm.
        sure = all(self.cluster.pods.get(name) == revisions for name, revisions in known.items())
        ended = self._run(returns_to.tag, steps=steps, returns_to=returns_to if sure else None)
        if ended:
            assert self.cluster.record is not None
            assert self.cluster.record.release == returns_to

    @rule(tag=TAGS, steps=STEPS)
    def deploy_fails_and_is_put_back(self, tag: str, steps: int) -> None:
        before = self.cluster.record
        assert before is not None
        self._run(tag, steps=steps)
        # Put back is what ran before, also where the failed release had moved the traffic already.
        self.cluster.record = before
        if self._run(before.release.tag, action="restore"):
            assert self.cluster.record.release == before.release
            assert self.cluster.pods[before.live] == {before.slots[before.live].revision}

    @rule(tag=TAGS)
    def canary(self, tag: str) -> None:
        assert self.cluster.record is not None
        self._run(self.cluster.record.release.tag, canary=tag)

    @rule(action=st.sampled_from(["restore", "tidy"]), steps=STEPS)
    def leave_the_traffic(self, action: Action, steps: int) -> None:
        assert self.cluster.record is not None
        record = self.cluster.record
        if action == "tidy" and self.cluster.pods.get(record.live) != {record.slots[record.live].revision}:
            return  # `release tidy` leaves a project alone whose last release was cut off
        live = self.cluster.record.release
        ended = self._run(live.tag, action=action, steps=steps)
        assert self.cluster.record.release == live
        if ended and action == "restore":
            assert self.cluster.pods[record.live] == {record.slots[record.live].revision}

    @precondition(lambda self: self.cluster.record is not None)
    @invariant()
    def always_served(self, *, exactly_one: bool = False) -> None:
        if self.cluster.record is None:
            return
        serving = self.cluster.serving()
        assert serving, f"nobody answers: {self.cluster}"
        assert not self.cluster.without_config(), f"pods without their configuration: {self.cluster}"
        if exactly_one:
            assert len(serving) == 1


TestReleases = Releases.TestCase
TestReleases.settings = settings(max_examples=300, stateful_step_count=30, deadline=None)
