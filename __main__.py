"""The Pulumi program: settings → cluster → namespace → ingress → projects → exports."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pulumi
from pulumi_kubernetes.core.v1 import Namespace

from components import FrontendApp, FrontendAppArgs, HaIngress, HaIngressArgs, PackageApp, PackageAppArgs
from components._apply import apply
from manifests.namespace import namespace
from model.problems import SettingsError
from model.stack import Application, Stack
from settings import load_stack, read_connection, read_outputs
from smoke import check


def declare(stack: Stack, application: Application, opts: pulumi.ResourceOptions) -> PackageApp | FrontendApp:
    """Declare one project's component."""
    environment, now = stack.environment, datetime.now(UTC).isoformat(timespec="seconds")
    if application.project.kind == "backend":
        return PackageApp(
            application.gitea_name, PackageAppArgs(application, environment, now, check(environment)), opts
        )
    return FrontendApp(application.gitea_name, FrontendAppArgs(application, environment, now, check(environment)), opts)


def tell(stack: Stack) -> None:
    """Say what the stack file leaves open."""
    for application in stack.waiting:
        pulumi.info(f"{application.gitea_name} has no tag and is not deployed: set package-platform:tags for it")
    for application in stack.kept:
        tag = application.image.tag if application.image else ""
        pulumi.info(
            f"{application.gitea_name} has no tag in the stack file and keeps {tag}: set package-platform:tags for it, "
            "or take it down with package-platform:projects.exclude"
        )
    for application in stack.deployed:
        migration = application.record.migration_after(application.release) if application.record else None
        if migration:
            pulumi.warn(
                f"{application.gitea_name} {application.release.tag} goes back past the migration of {migration.tag}, "
                "which is not undone"
            )


def main() -> None:
    """Declare everything that the selected stack consists of."""
    stack = load_stack()
    if stack.whole:
        tell(stack)
    environment = stack.environment
    earlier = {} if stack.whole else read_outputs()
    first, providers = own_cluster(stack, earlier) if stack.cluster else ([], [])
    if stack.platform:
        # A provider that a component would hand on has to be named here.
        options = pulumi.ResourceOptions(provider=next(iter(providers), None), depends_on=first)
        first.append(apply(Namespace, environment.namespace, namespace(environment), options))
    if environment.ingress.ha and stack.whole:
        options = pulumi.ResourceOptions(providers=providers, depends_on=first)
        ingress = HaIngress("ingress", HaIngressArgs(environment, environment.ingress.ha), options)
        pulumi.export("ingress", {"className": ingress.class_name, "addresses": ingress.addresses})
        first.append(ingress)
    apps = {
        application.gitea_name: declare(
            stack, application, pulumi.ResourceOptions(providers=providers, depends_on=first)
        )
        for application in stack.deployed
    }
    export(stack, apps, earlier)


def own_cluster(
    stack: Stack, earlier: dict[str, Any]
) -> tuple[list[pulumi.Resource], list[pulumi.ProviderResource]]:
    """Declare the stack's own cluster and the way into it.

    Args:
        stack: With a cluster.
        earlier: The stack's outputs so far, where only one project is registered; what is new of the cluster's is put
            into them.

    Returns:
        What everything in the cluster has to wait for, and who declares it.
    """
    from components.ack_cluster import AckCluster, AckClusterArgs, cloud, connect  # noqa: PLC0415 - test and uat don't pay

    settings, known = stack.cluster, read_connection()
    if settings is None:
        return [], []
    provider = cloud(settings)
    first: list[pulumi.Resource] = []
    if stack.whole:
        cluster = AckCluster("cluster", AckClusterArgs(settings), pulumi.ResourceOptions(providers=[provider]))
        first, outputs = [cluster], cluster.outputs()
        where: tuple[pulumi.Input[str], pulumi.Input[str]] = (cluster.cluster_id, cluster.endpoint)
    elif known:
        outputs, where = earlier["cluster"], (known.id, known.endpoint)
    else:
        raise pulumi.RunError("the stack's cluster is not known yet: run `pulumi up` of the whole stack first")
    access = connect(settings, where, known, datetime.now(UTC), provider)
    earlier.update(cluster={**outputs, "expires": access.expires}, kubeconfig=access.kubeconfig)
    return first, [access.provider]


def export(stack: Stack, apps: Mapping[str, PackageApp | FrontendApp], earlier: Mapping[str, Any]) -> None:
    """Export what runs and where it answers.

    Args:
        stack: What is registered.
        apps: Gitea project → its component.
        earlier: The stack's outputs so far, in which only these projects change: a run that registers one project
            would otherwise take all others out of them.
    """
    for name, value in earlier.items():
        pulumi.export(name, value)
    waiting = {application.gitea_name: None for application in stack.waiting}
    releases = {name: app.release for name, app in apps.items()}
    pulumi.export("releases", {**earlier.get("releases", {}), **releases, **waiting})
    environment = stack.environment
    pulumi.export(
        "endpoints",
        {
            **earlier.get("endpoints", {}),
            **{
                name: {"url": app.url, "address": environment.ingress.entry, "namespace": environment.namespace}
                for name, app in apps.items()
            },
        },
    )


try:
    main()
except SettingsError as error:
    raise pulumi.RunError(f"nothing was changed, the settings have problems:\n{error}") from None
