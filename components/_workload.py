"""The resources of a project, in the order in which a release must touch them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pulumi

from components._apply import NOTES, KubernetesObject, apply
from components.storage import Storage, StorageArgs
from manifests import Manifest
from manifests.storage import classes, growing
from manifests.workload import SlotWorkload, Workload
from model.environment import Environment
from model.names import COMPONENT_TYPES, Kind, SlotName, slot_name
from model.plan import Plan, SlotPlan
from model.release import RECORD_ANNOTATION, parse_record
from model.stack import Application

_AWAIT_MARGIN_SECONDS = 60
_DELETE_SECONDS = 600
"""Pulumi's own default; a deletion waits until the pods are gone."""

Check = Callable[[Application, SlotPlan], None]
Wait = Callable[[Application, SlotName, str], Awaitable[None]]
_DependsOn = Sequence[pulumi.Resource] | pulumi.Output[Sequence[pulumi.Resource]]
_UNTOUCHED = [
    *NOTES,
    "spec.minReadySeconds",
    "spec.progressDeadlineSeconds",
    "spec.revisionHistoryLimit",
    "spec.strategy",
    "spec.template",
    "spec.updateStrategy",
]
"""All of a Deployment, or StatefulSet, but the number of its pods."""


@dataclass(frozen=True)
class WorkloadArgs:
    """What a project's component is told.

    Attributes:
        application: The project with the image to run, and what its last release recorded.
        environment: Where it runs.
        now: The time (RFC 3339), recorded when another release goes live.
        check: Called with the slot that is to get the traffic, when its pods are ready and before the traffic moves;
            what it raises stops the release there. None asks nothing.
        wait: Waits until all pods of the slot that is to get the traffic are ready, and of a revision if one is named,
            where Pulumi's own wait does not do: for a StatefulSet, and for a slot that is as it was. None trusts that
            they are.
    """

    application: Application
    environment: Environment
    now: str = ""
    check: Check | None = None
    wait: Wait | None = None


@dataclass(frozen=True)
class _Declared:
    """One project on its way to resources."""

    name: str
    args: WorkloadArgs
    plan: Plan
    workload: Workload

    def named(self, manifest: Manifest) -> str:
        """Return an object's name in Pulumi: what it is called beyond the project's own name, after the Gitea name."""
        return self.name + str(manifest["metadata"]["name"]).removeprefix(self.args.application.name)


class WorkloadComponent(pulumi.ComponentResource):
    """Base of ``PackageApp`` and ``FrontendApp``: the same resources, from manifests of their own kind."""

    component_type: ClassVar[str]
    """Type of the component in the state; changing it replaces every project."""
    kind: ClassVar[Kind]
    """Kind of the projects that it is for."""
    render: ClassVar[Callable[[Application, Environment, Plan], Workload]]
    """Makes the manifests."""
    plan: ClassVar[Callable[[Application, Environment, str], Plan]]
    """Tells what each slot must be, given the time."""

    url: pulumi.Output[str | None]
    """What a person types to reach it; None for a project without routes."""
    service_name: pulumi.Output[str]
    """Name of its Service, which is its name in the cluster's DNS."""
    tag: pulumi.Output[str]
    """The tag that runs, from the record as it was applied."""
    release: pulumi.Output[dict[str, str | None]]
    """What runs, from the record as it was applied: ``slot``, ``tag``, ``digest``, and the commit ``config`` where
    the project has one."""

    def __init__(self, name: str, args: WorkloadArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        """Declare the project's resources.

        Args:
            name: The Gitea project: ``SJZY.Package.Api``. It is the component's name in the stack.
            args: The project, where it runs, and what it ran before.
            opts: Pulumi's options; a provider given here is inherited by all children.

        Raises:
            ValueError: If the project is of another kind or has no image.
        """
        super().__init__(
            self.component_type, name, {}, pulumi.ResourceOptions.merge(opts, _formerly(self.component_type))
        )
        kind = args.application.project.kind
        if kind != self.kind:
            raise ValueError(f"{name} is a {kind}, which is no {type(self).__name__}")
        plan = type(self).plan(args.application, args.environment, args.now)
        self._declare(_Declared(name, args, plan, type(self).render(args.application, args.environment, plan)), opts)

    def _declare(self, declared: _Declared, opts: pulumi.ResourceOptions | None) -> None:
        if declared.plan.as_it_ran:
            file = declared.args.application.file
            pulumi.info(
                f"{declared.name} goes back to pods that are still warm, as they are: what {file} has changed since "
                "comes with the next release or `pulumi up`"
            )
        first = self._first(declared, opts)
        weighted, plan = declared.plan.record.weighted, declared.plan
        if plan.entry_first:
            first = [*first, *self._entry(declared, first)]
        # Not in place: the Job would depend on itself.
        first = [*first, *self._migration(declared, first)]
        deployments = {
            slot.plan.name: self._slot(declared, slot, first)
            for slot in declared.workload.slots
            if not slot.plan.after_traffic
        }
        # The record is written, and traffic is moved, only after the pods are ready; a canary's weight likewise.
        awaited = list(deployments.values()) if weighted else [deployments[plan.record.live]]
        moved = self._checked(declared, deployments[plan.record.live], awaited)
        if weighted and not plan.entry_first:
            moved = self._entry(declared, moved)
        options = pulumi.ResourceOptions(parent=self, depends_on=moved)
        service = apply(declared.name, declared.workload.service, options)
        for slot in declared.workload.slots:
            if slot.plan.after_traffic:
                self._slot(declared, slot, [*first, service])
        if not weighted:
            self._ingresses(declared, [service, *deployments.values()])
        self._export(declared.args, service)

    def _first(self, declared: _Declared, opts: pulumi.ResourceOptions | None) -> list[pulumi.Resource]:
        """Declare what the pods need. A proxy in them resolves the slots' names when it starts."""
        # Pulumi waits for a component's `depends_on` only when it registers the component itself: hand it on.
        child = pulumi.ResourceOptions(parent=self, depends_on=opts.depends_on if opts else None)
        workload = declared.workload
        return [
            apply(declared.name, workload.service_account, child),
            *(apply(declared.named(each), each, child) for each in workload.config_maps),
            *(apply(declared.named(each), each, child) for each in workload.secrets),
            *(apply(declared.named(each), each, child) for each in workload.slot_services),
            *self._storage(declared, child),
        ]

    def _storage(self, declared: _Declared, child: pulumi.ResourceOptions) -> list[pulumi.Resource]:
        """Declare the volumes; a project without any has no component for them."""
        application, environment = declared.args.application, declared.args.environment
        args = StorageArgs(
            claims=declared.workload.claims,
            kept=declared.workload.kept_claims,
            growing=growing(application),
            there=frozenset(each.name for each in application.claims if not each.per_pod),
            classes=classes(application, environment),
        )
        if not application.project.storage and not args.kept:
            return []
        return Storage(declared.name, args, child).claims

    def _migration(self, declared: _Declared, first: Sequence[pulumi.Resource]) -> list[pulumi.Resource]:
        """Declare the Job that runs before the pods; Pulumi waits for its end.

        Its name in Pulumi is its own one, with the release's hash: the Job of the release before is deleted when the
        new release is there. One that is there is never touched: a Job can't be changed, and to make it anew would be
        to run it again.
        """
        job = declared.workload.migration
        if job is None:
            return []
        spec = job["spec"]
        seconds = spec["activeDeadlineSeconds"] + _AWAIT_MARGIN_SECONDS
        options = pulumi.ResourceOptions(
            parent=self,
            depends_on=first,
            custom_timeouts=pulumi.CustomTimeouts(create=f"{seconds}s", update=f"{seconds}s"),
            ignore_changes=[*NOTES, "spec"],
        )
        return [apply(declared.named(job), job, options)]

    def _slot(self, declared: _Declared, slot: SlotWorkload, first: Sequence[pulumi.Resource]) -> KubernetesObject:
        name = f"{declared.name}-{slot.plan.name}"
        after = pulumi.ResourceOptions(parent=self, depends_on=first)
        deployment = apply(name, slot.deployment, self._deployment_options(declared, slot, first))
        apply(name, slot.disruption_budget, after)
        if slot.autoscaler:
            apply(name, slot.autoscaler, self._unmoved(declared, [deployment], NOTES))
        return deployment

    def _deployment_options(
        self, declared: _Declared, slot: SlotWorkload, first: Sequence[pulumi.Resource]
    ) -> pulumi.ResourceOptions:
        project, plan = declared.args.application.project, slot.plan
        # The deadline of a Deployment begins anew with each pod that is ready, Pulumi's does not.
        seconds = project.turn_seconds * project.turns + _AWAIT_MARGIN_SECONDS
        deleting = max(_DELETE_SECONDS, project.shutdown.grace_seconds + _AWAIT_MARGIN_SECONDS)
        ignored = [] if plan.change == "declare" else list(_UNTOUCHED)
        if any(each.per_pod for each in declared.args.application.claims):
            # They can't change while the StatefulSet is there: any other text of them would have it made anew.
            ignored.append("spec.volumeClaimTemplates")
        if _keeps_number(declared.args.application, slot):
            ignored.append("spec.replicas")
        return pulumi.ResourceOptions(
            parent=self,
            depends_on=first,
            # Longer than the Deployment's own deadline, so that the message is Kubernetes' and not a bare time-out.
            custom_timeouts=pulumi.CustomTimeouts(create=f"{seconds}s", update=f"{seconds}s", delete=f"{deleting}s"),
            ignore_changes=ignored or None,
        )

    def _checked(self, declared: _Declared, live: KubernetesObject, awaited: Sequence[pulumi.Resource]) -> _DependsOn:
        """Return what the move of the traffic depends on: the pods, and the check of those that are to get it."""
        args, plan = declared.args, declared.plan
        kept = plan.as_it_ran
        seen = slot_name(args.application.name, plan.live.name) in args.application.ready and not kept
        wait = args.wait if args.application.project.stateful or (plan.revives and not seen) else None
        # Pods that are taken as they are served before, and today's checks are of today's release.
        check = args.check if plan.moves and not kept else None
        if pulumi.runtime.is_dry_run() or not (wait or check):
            return awaited

        async def checked(_: str) -> Sequence[pulumi.Resource]:
            if wait:
                await wait(args.application, plan.live.name, plan.live.content.revision if kept else "")
            if check:
                check(args.application, plan.live)
            return awaited

        return live.id.apply(checked)

    def _entry(self, declared: _Declared, after: _DependsOn) -> list[pulumi.Resource]:
        """Declare the Ingress whose weights move the traffic."""
        manifest = declared.workload.ingress
        # Its rules and the annotations that give them their weights are of one kind, and go together.
        options = pulumi.ResourceOptions(parent=self, depends_on=after)
        return [apply(declared.name, manifest, options)] if manifest else []

    def _ingresses(self, declared: _Declared, after: Sequence[pulumi.Resource]) -> None:
        if declared.workload.ingress:
            apply(declared.name, declared.workload.ingress, self._unmoved(declared, after, NOTES))
        if declared.workload.canary_ingress:
            # Its weight is among its notes.
            apply(f"{declared.name}-canary", declared.workload.canary_ingress, self._unmoved(declared, after, []))

    def _unmoved(
        self, declared: _Declared, after: Sequence[pulumi.Resource], notes: Sequence[str]
    ) -> pulumi.ResourceOptions:
        """Return the options of what only a release changes.

        What puts back or tidies finds the file of today, or of a clone that is behind: what that says of routes and
        autoscaling was not released with what runs.
        """
        ignored = None if declared.args.application.action == "release" else [*notes, "spec"]
        return pulumi.ResourceOptions(parent=self, depends_on=after, ignore_changes=ignored)

    def _export(self, args: WorkloadArgs, service: KubernetesObject) -> None:
        routes = args.application.project.routes
        self.url = pulumi.Output.from_input(args.environment.url(routes[0]) if routes else None)
        self.service_name = service.metadata.apply(lambda metadata: str(metadata["name"]))
        self.release = service.metadata.apply(_recorded)
        self.tag = self.release.apply(lambda release: release.get("tag") or "")
        # What no release changes: for each component whose outputs change the engine writes its whole state once more.
        # What runs is among the outputs of the stack.
        self.register_outputs({"url": self.url, "serviceName": self.service_name})


def _keeps_number(application: Application, slot: SlotWorkload) -> bool:
    """Tell whether a slot keeps the number of pods that it has, whatever is declared."""
    plan, known = slot.plan, application.pods.get(slot_name(application.name, slot.plan.name))
    if plan.change == "park":
        return False
    if application.action == "tidy":
        return True
    if application.action == "restore":
        return known is None or slot.autoscaler is not None
    if not application.project.autoscaling or plan.name == "canary" or plan.starting:
        return False
    # The autoscaler owns the number after creation; leaving the field out would reset it to 1. But without a pod it is
    # off, and never starts the first one.
    return known != 0


def _formerly(component_type: str) -> pulumi.ResourceOptions:
    """Return what lets a project change its kind: its objects are the same, under a component of another type."""
    others = [each for each in COMPONENT_TYPES.values() if each != component_type]
    return pulumi.ResourceOptions(aliases=[pulumi.Alias(type_=each) for each in others])


def _recorded(metadata: Mapping[str, Any]) -> dict[str, str | None]:
    """Return what runs, from the record in the metadata of a Service."""
    annotations: Mapping[str, str] = metadata.get("annotations") or {}
    record = parse_record(annotations.get(RECORD_ANNOTATION, ""))
    if record is None:
        return {}
    release = record.release
    config = {"config": release.config.revision} if release.config else {}
    return {"slot": record.live, "tag": release.tag, "digest": release.digest, **config}
