"""From what a project runs and what is wanted to what each of its slots must be: the rules of all strategies. Pure.

A slot is one Deployment: ``main`` (rolling, and a canary's stable version), ``blue`` and ``green``, ``canary``. The
rules hold over a half-done release too, as they never trust what the record says of a slot without traffic: the slot
that is to get the traffic is always declared whole, and the traffic moves only when it is ready.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Literal

from pydantic import Field

from model.fields import Frozen, Tag
from model.names import SLOTS, SlotName
from model.release import KEPT_RELEASES, REVISION_LABEL, SLOT_LABEL, Migrated, Record, Release, Slot

StrategyName = Literal["rolling", "blueGreen", "canary"]
After = Literal["warm", "both"]
Action = Literal["release", "restore", "tidy"]
Change = Literal["declare", "keep", "park"]
_CHANGE: dict[bool, Change] = {True: "declare", False: "keep"}
_COLOURS: tuple[SlotName, SlotName] = ("blue", "green")


class CanaryWish(Frozen):
    """A second release of a project that gets a part of its traffic: an entry of ``package-platform:canaries``."""

    tag: Tag
    """Image tag."""
    weight: Annotated[int, Field(ge=0, le=100)] = 0
    """Percent of the requests."""
    header: Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{1,64}$")] | None = None
    """Requests with this header and the value ``always`` get it whatever the weight, those with ``never`` don't."""


class Wanted(Frozen):
    """What a project shall run."""

    slot: Slot
    """The release with the revision of its pod template."""
    canary: Slot | None = None
    """The canary, where there is one."""


class SlotPlan(Frozen):
    """What one slot must be."""

    name: SlotName
    """The slot."""
    content: Slot
    """What it runs."""
    change: Change
    """``declare``: bring it to what is rendered. ``keep``: leave it as it is, whatever is rendered. ``park``: leave it,
    but without pods."""
    after_traffic: bool = False
    """Whether it is touched only after the traffic has moved."""
    starting: bool = False
    """Whether it is to get traffic that it did not have: it must start with as many pods as carry the load."""


class Plan(Frozen):
    """What a project must become."""

    slots: tuple[SlotPlan, ...]
    """Every slot that there is to be; others are removed at the end."""
    record: Record
    """What is written by the request that moves the traffic."""
    moves: bool
    """Whether another release gets the traffic."""
    revives: bool = False
    """Whether the slot that gets the traffic is one that had it before, and is as it was: nothing changes its pods, so
    nothing but a look tells whether they are there."""
    entry_first: bool = False
    """Behind weights: whether the Ingress comes before the pods, as there was none that knew all slots. Pods that wait
    to be known to a load balancer would otherwise wait for ever."""

    @property
    def live(self) -> SlotPlan:
        """The slot that gets the traffic."""
        return next(slot for slot in self.slots if slot.name == self.record.live)

    @property
    def as_it_ran(self) -> bool:
        """Whether the traffic moves to pods that are taken as they are."""
        return self.moves and self.live.change == "keep"

    @property
    def traffic(self) -> dict[str, str]:
        """The label that the traffic follows.

        ``main`` is followed by its slot: its pods of two releases take turns. A colour is followed by its revision, so
        that a half-updated slot never gets requests that are not meant for it.
        """
        live = self.live
        return {SLOT_LABEL: live.name} if live.name == "main" else {REVISION_LABEL: live.content.revision}

    def weights(self, canary: int = 0) -> dict[SlotName, int]:
        """Return each slot's percent of the traffic, where it is moved by weights: always of all slots, 100 in sum.

        Args:
            canary: The canary's percent, where there is one.
        """
        part = canary if any(slot.name == "canary" for slot in self.slots) else 0
        return {**dict.fromkeys(SLOTS, 0), "canary": part, self.live.name: 100 - part}


def plan(  # noqa: PLR0913 - the facts that the rules stand on
    record: Record | None,
    wanted: Wanted,
    strategy: StrategyName,
    after: After = "warm",
    *,
    action: Action = "release",
    now: str = "",
    migrated: Migrated | None = None,
    weighted: bool = False,
    returns_to: Release | None = None,
    touched: Collection[SlotName] = (),
) -> Plan:
    """Return what a project must become.

    Args:
        record: What it runs; None before its first release.
        wanted: What it shall run.
        strategy: How a release replaces the running one.
        after: What becomes of the old slot of a blue-green release: ``warm`` (kept without traffic), or ``both``
            (upgraded as well, and both serve).
        action: ``restore`` and ``tidy`` change no traffic; see ``model.release.Instruction``.
        now: The time (RFC 3339), noted when the live release changes.
        migrated: What is to be noted of migrations.
        weighted: Whether traffic from outside is moved by weights in the Ingress, and not by the Service alone.
        returns_to: The recorded release that is gone back to: a warm colour that has it gets the traffic with the pods
            that it has, also where the project file makes others of it by now, as what the file changed may be what
            failed. None otherwise; and the caller must have seen that the slots are as the record says.
        touched: To restore, the slots that are not as the record says, by what the cluster tells.
    """
    ran = _ran(record, returns_to, wanted.slot) if strategy == "blueGreen" and after == "warm" else None
    if ran:
        wanted = wanted.model_copy(update={"slot": ran})
    if record and action != "release":
        planned = _unmoved(record, action, touched)
    else:
        planned = _planned(record, wanted, strategy, after, now)
    if ran:
        first, *others = planned.slots
        planned = planned.model_copy(update={"slots": (first.model_copy(update={"change": "keep"}), *others)})
    noted = {"migrated": migrated, "weighted": weighted or None}
    planned = planned.model_copy(update={"record": planned.record.model_copy(update=noted)})
    return _behind_weights(planned, record) if weighted else planned


def _planned(record: Record | None, wanted: Wanted, strategy: StrategyName, after: After, now: str) -> Plan:
    wanted = _as_recorded(record, wanted)
    target = _target(record, wanted.slot, strategy, after)
    slots = _slots(record, wanted, target, strategy, after)
    contents: dict[SlotName, Slot] = {each.name: each.content for each in slots}
    warm = record.slots.get(target) if record and record.live != target else None
    return Plan(
        slots=slots,
        record=_recorded(record, target, contents, now),
        moves=record is None or record.live != target or record.release != wanted.slot.release,
        revives=warm is not None and _is_same(warm, wanted.slot),
    )


def _behind_weights(planned: Plan, record: Record | None) -> Plan:
    """Return the plan for a project whose traffic has two movers: first the Ingress' weights, then the Service.

    What was killed between the two has left weight on a slot that the record knows nothing of. So every slot but the
    one that gets the traffic, and its canary, is touched only when the weights are as planned.
    """
    stays = {"canary", planned.live.name}
    slots = tuple(
        slot if slot.name in stays else slot.model_copy(update={"after_traffic": True}) for slot in planned.slots
    )
    return planned.model_copy(update={"slots": slots, "entry_first": not (record and record.weighted)})


def _as_recorded(record: Record | None, wanted: Wanted) -> Wanted:
    """Return what is wanted, in the record's words where that is what runs.

    A later commit of the config repository with the same content must not change the record, or it would touch every
    project.
    """
    if record is None:
        return wanted

    def told(slot: Slot, recorded: Slot | None) -> Slot:
        if recorded is None or recorded.release != slot.release:
            return slot
        return slot.model_copy(update={"release": recorded.release})

    canary = wanted.canary and told(wanted.canary, record.slots.get("canary"))
    return Wanted(slot=told(wanted.slot, record.slots[record.live]), canary=canary)


def _ran(record: Record | None, returns_to: Release | None, wanted: Slot) -> Slot | None:
    """Return a warm colour that has a release, made otherwise than it would be made now; None where there is none.

    Not one with other secrets: a password that was changed is the right one for every release.
    """
    if record is None or returns_to is None or record.release == returns_to:
        return None
    return next(
        (
            slot
            for name, slot in record.slots.items()
            if name in _COLOURS and slot.warm and slot.release == returns_to and slot.secrets == wanted.secrets
            if not _is_same(slot, wanted)
        ),
        None,
    )


def _target(record: Record | None, wanted: Slot, strategy: StrategyName, after: After) -> SlotName:
    """Return the slot that is to get the traffic."""
    if record is None:
        return "blue" if strategy == "blueGreen" else "main"
    if _is_same(record.slots[record.live], wanted):
        return record.live
    if strategy != "blueGreen":
        return "main"
    if after == "warm":
        for name, slot in record.slots.items():
            if name != "canary" and _is_same(slot, wanted):
                return name
    # The one that is not live; a warm colour is used again, so that there are never three.
    free: list[SlotName] = [name for name in _COLOURS if name != record.live]
    return free[0] if free[0] in record.slots or free[-1] not in record.slots else free[-1]


def _slots(
    record: Record | None, wanted: Wanted, target: SlotName, strategy: StrategyName, after: After
) -> tuple[SlotPlan, ...]:
    before = record.live if record else None
    first = SlotPlan(name=target, content=wanted.slot, change="declare", starting=target != before)
    if strategy == "blueGreen" and after == "both":
        return (first, _partner(record, wanted.slot, target))
    if strategy == "blueGreen":
        return (first, *_left_warm(record, target))
    canary = wanted.canary if strategy == "canary" else None
    second = (SlotPlan(name="canary", content=canary, change="declare"),) if canary else ()
    return (first, *second)


def _partner(record: Record | None, wanted: Slot, target: SlotName) -> SlotPlan:
    """Return the other half of an A/B pair: upgraded when the traffic has gone to the first, and joining it then."""
    name: SlotName = next(colour for colour in _COLOURS if colour != target)
    starting = record is None or name not in record.slots
    return SlotPlan(name=name, content=wanted, change="declare", after_traffic=True, starting=starting)


def _left_warm(record: Record | None, target: SlotName) -> tuple[SlotPlan, ...]:
    """Return the slot that stays without traffic: the one that had it, or the one that was warm already."""
    if record is None:
        return ()
    stays: list[SlotName] = (
        [record.live] if record.live != target else [name for name in record.slots if name != target]
    )
    return tuple(
        SlotPlan(name=name, content=slot, change="keep" if slot.warm else "park")
        for name in stays[:1]
        if name != "canary" and (slot := record.slots[name])
    )


def _unmoved(record: Record, action: Action, touched: Collection[SlotName]) -> Plan:
    """Return what leaves the traffic where it is."""
    # The second half of an A/B pair is the colour that was live: it is upgraded when the traffic has left it.
    halved = action == "restore" and record.live != "main" and record.live in touched
    slots: list[SlotPlan] = []
    for name, slot in record.slots.items():
        parked = not slot.warm or (action == "tidy" and _is_idle(record, name))
        # Any other colour that is live was not touched by what failed: only `main` is upgraded in its place.
        restored = action == "restore" and (name != record.live or name == "main" or halved)
        content = slot.model_copy(update={"warm": not parked})
        # What failed may have moved the traffic: it is back, to pods that are whole, before the others are touched.
        later = action == "restore" and name not in (record.live, "canary")
        change: Change = "park" if parked else _CHANGE[restored]
        slots.append(SlotPlan(name=name, content=content, change=change, after_traffic=later))
    contents: dict[SlotName, Slot] = {each.name: each.content for each in slots}
    after = record.model_copy(update={"slots": contents})
    return Plan(slots=tuple(slots), record=after, moves=False)


def _is_idle(record: Record, name: SlotName) -> bool:
    """Tell whether a slot gets no requests: the second half of an A/B pair has the revision of the first."""
    if name in (record.live, "canary"):
        return False
    return record.live == "main" or record.slots[name].revision != record.slots[record.live].revision


def _recorded(record: Record | None, live: SlotName, slots: dict[SlotName, Slot], now: str) -> Record:
    wanted = slots[live].release
    earlier = record.history if record else ()
    if record and earlier and earlier[0] == wanted:
        return Record(live=live, slots=slots, history=earlier, since=record.since if record.live == live else now)
    history = (wanted, *(release for release in earlier if release != wanted))
    return Record(live=live, slots=slots, history=_kept(history), since=now)


def _kept(history: tuple[Release, ...]) -> tuple[Release, ...]:
    """Return what a record remembers: older configurations of a tag are forgotten before the last one of another."""
    kept = list(history)
    while len(kept) > KEPT_RELEASES:
        tags = [each.tag for each in kept]
        again = (index for index in range(len(kept) - 1, 0, -1) if tags[index] in tags[:index])
        del kept[next(again, len(kept) - 1)]
    return tuple(kept)


def _is_same(slot: Slot, wanted: Slot) -> bool:
    """Tell whether a slot was given exactly this to run; the image's digest is in the revision."""
    return slot.release == wanted.release and slot.revision == wanted.revision
