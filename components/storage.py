"""``Storage``: a project's volumes as one Pulumi component."""

from collections.abc import Sequence
from dataclasses import dataclass

import pulumi

from components._apply import NOTES, KubernetesObject, apply
from manifests import Manifest
from manifests.storage import kept_claims, shared_class
from model.environment import Environment
from model.storage import RECLAIM_ANNOTATION, VOLUME_ANNOTATION, Claim


@dataclass(frozen=True)
class StorageArgs:
    """What ``Storage`` is told.

    Attributes:
        claims: Manifests of the volumes that are asked for.
        kept: Manifests of volumes that there are, that nothing asks for any more, and that stay: they are declared as
            they are, so that they stay in the state and are there again when they are asked for.
        growing: Names of claims that are to grow.
        there: Names of the claims that there are.
        classes: StorageClasses that the cluster must have.
    """

    claims: Sequence[Manifest] = ()
    kept: Sequence[Manifest] = ()
    growing: frozenset[str] = frozenset()
    there: frozenset[str] = frozenset()
    classes: Sequence[str] = ()


class Storage(pulumi.ComponentResource):
    """The volumes of a project; Pulumi refuses to delete or replace what ``reclaim: retain`` keeps."""

    claims: list[pulumi.Resource]
    """What a pod has to wait for: the claims, and that the cluster has their classes."""

    def __init__(self, name: str, args: StorageArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        """Declare the claims.

        Args:
            name: The Gitea project.
            args: Its volumes.
            opts: Pulumi's options; a provider given here is inherited by all children.
        """
        super().__init__("package-platform:index:Storage", name, {}, opts)
        # Pulumi waits for a component's `depends_on` only when it registers the component itself: hand it on.
        first = opts.depends_on if opts else None
        classes = [_existing(f"{name}-{each}", each, pulumi.ResourceOptions(parent=self)) for each in args.classes]
        options = pulumi.ResourceOptions(parent=self, depends_on=first)
        self.claims = [*classes]
        for each in args.claims:
            # A provider before 3.7.1 makes a claim anew that is to grow, which ends its data: let it fail instead.
            grows = each["metadata"]["name"] in args.growing
            # One that is there and stays as large is never asked for its size again, however that is written.
            same = ["spec.resources"] if each["metadata"]["name"] in args.there and not grows else None
            own = pulumi.ResourceOptions(protect=_outlives(each) or grows, depends_on=classes, ignore_changes=same)
            self.claims.append(_claim(name, each, pulumi.ResourceOptions.merge(options, own)))
        for each in args.kept:
            own = pulumi.ResourceOptions(protect=_outlives(each), ignore_changes=[*NOTES, "spec"])
            _claim(name, each, pulumi.ResourceOptions.merge(options, own))
        names = [str(each["metadata"]["name"]) for each in (*args.claims, *args.kept)]
        self.register_outputs({"claims": names})


def declare_class(environment: Environment, opts: pulumi.ResourceOptions) -> KubernetesObject:
    """Declare the StorageClass of the environment's own NFS server.

    Args:
        environment: With the server.
        opts: Pulumi's options.

    Raises:
        ValueError: If it names none.
    """
    manifest = shared_class(environment)
    if manifest is None:
        raise ValueError(f"{environment.name} names no NFS server")
    return apply(str(manifest["metadata"]["name"]), manifest, opts)


def keep(claims: Sequence[Claim], environment: Environment, opts: pulumi.ResourceOptions) -> None:
    """Go on declaring the volumes of projects that are not deployed any more, each where it was.

    Args:
        claims: The volumes.
        environment: Where they are.
        opts: What they depend on.
    """
    for component, project in sorted({(each.component, each.project) for each in claims}):
        own = [each for each in claims if each.project == project]
        parent = pulumi.ComponentResource(component, project, {}, opts)
        options = pulumi.ResourceOptions(parent=parent, depends_on=opts.depends_on)
        Storage(project, StorageArgs(kept=kept_claims(own, environment)), options)
        parent.register_outputs({})


def _claim(project: str, manifest: Manifest, opts: pulumi.ResourceOptions) -> KubernetesObject:
    volume = manifest["metadata"]["annotations"][VOLUME_ANNOTATION]
    return apply(f"{project}-{volume}", manifest, opts)


def _outlives(manifest: Manifest) -> bool:
    """Tell whether a claim's data outlives the project file."""
    return manifest["metadata"]["annotations"][RECLAIM_ANNOTATION] == "retain"


def _existing(name: str, storage_class: str, opts: pulumi.ResourceOptions) -> pulumi.CustomResource:
    """Ask the cluster for a StorageClass, in a preview too: without it the run stops before any pod is touched."""
    from pulumi_kubernetes.storage.v1 import StorageClass  # noqa: PLC0415 - rarely used, and start-up counts

    return StorageClass.get(name, storage_class, opts=opts)
