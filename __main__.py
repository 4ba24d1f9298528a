"""The Pulumi program: settings → cluster → namespace → ingress → projects → exports."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pulumi

from components import FrontendApp, FrontendAppArgs, HaIngress, HaIngressArgs, PackageApp, PackageAppArgs
from components._apply import apply
from components.storage import declare_class, keep
from manifests.namespace import namespace
from manifests.secrets import pull_secret
from model.ack import AckSettings
from model.problems import SettingsError
from model.stack import Application, Stack
from rollout import slot_rollout
from settings import load_stack, read_connection, read_outputs
from smoke import Ask, asks_cluster, check


@dataclass(frozen=True)
class Entered:
    """What leads into the cluster.

    Args:
        first: What all in the cluster has to wait for.
        provider: By whom it is declared; None for the default provider.
        load_balancer: Id of the ALB beside the cluster, where the stack makes one.
        ask: Asks the cluster's API server; None for the one that the default provider would choose.
    """

    first: tuple[pulumi.Resource, ...] = ()
    provider: pulumi.ProviderResource | None = None
    load_balancer: pulumi.Output[str] | None = None
    ask: Ask | None = None


def declare(
    stack: Stack, application: Application, ask: Ask | None, opts: pulumi.ResourceOptions
) -> PackageApp | FrontendApp:
    """Declare one project's component."""
    environment, now = stack.environment, datetime.now(UTC).isoformat(timespec="seconds")
    asks = check(environment, ask), slot_rollout(environment, ask)
    if application.project.kind == "backend":
        return PackageApp(application.gitea_name, PackageAppArgs(application, environment, now, *asks), opts)
    return FrontendApp(application.gitea_name, FrontendAppArgs(application, environment, now, *asks), opts)


def tell(stack: Stack) -> None:
    """Say what the stack file leaves open."""
    for application in stack.waiting:
        pulumi.info(f"{application.gitea_name} has no tag and is not deployed: set package-platform:tags for it")
    for application in stack.kept:
        image = f"{application.image.tag} of {application.image.repository}" if application.image else ""
        pulumi.info(
            f"{application.gitea_name} has no tag in the stack file and keeps {image}: set package-platform:tags for "
            "it, or take it down with package-platform:projects.exclude"
        )
    for claim in stack.left_claims:
        pulumi.info(
            f"{claim.project} is not deployed, and its volume {claim.name} ({claim.size}) is kept: "
            "see docs/how-to/storage.md"
        )
    for application in stack.deployed:
        migration = application.record.migration_after(application.release) if application.record else None
        if migration:
            pulumi.warn(
                f"{application.gitea_name} {application.release.tag} goes back past the migration of {migration.tag}, "
                "which is not undone"
            )


def keep_on_path(folder: str) -> None:
    """Let what runs after this file's text load modules of the program.

    ``pulumi up`` has the folder run by ``runpy.run_path``, which takes it off Python's path at the end of the text;
    checks and waits come later, as callbacks of outputs.
    """
    if folder not in sys.path[1:]:  # the first entry is the one that goes
        sys.path.append(folder)


def main() -> None:
    """Declare everything that the selected stack consists of."""
    keep_on_path(str(Path(__file__).resolve().parent))
    stack = load_stack()
    if stack.whole:
        tell(stack)
    environment = stack.environment
    entered = own_cluster(stack, stack.cluster) if stack.cluster else Entered()
    first = [*entered.first]

    def after() -> pulumi.ResourceOptions:
        return pulumi.ResourceOptions(provider=entered.provider, depends_on=list(first))

    if stack.platform:
        # With the namespace all volumes would go, whatever is said of each.
        guarded = pulumi.ResourceOptions.merge(after(), pulumi.ResourceOptions(protect=stack.keeps_data or None))
        first.append(apply(environment.namespace, namespace(environment), guarded))
        if credentials := stack.cluster_secrets.registry:
            manifest = pull_secret(environment, environment.namespace, credentials)
            first.append(apply("registry", manifest, after()))
    if environment.storage.nfs and stack.platform:
        first.append(declare_class(environment, after()))
    if environment.ingress.ha and stack.whole:
        args = HaIngressArgs(environment, environment.ingress.ha, stack.cluster_secrets, entered.load_balancer)
        ingress = HaIngress("ingress", args, after())
        pulumi.export("ingress", {"className": ingress.class_name, "addresses": ingress.addresses})
        first += ingress.named
    apps = {each.gitea_name: declare(stack, each, entered.ask, after()) for each in stack.deployed}
    keep(stack.left_claims, environment, after())
    export(stack, apps, {} if stack.whole else read_outputs())


def own_cluster(stack: Stack, settings: AckSettings) -> Entered:
    """Declare the stack's own cluster. A run that registers one project only enters it."""
    # Only where there is a cluster: to import the cloud's SDK takes as long as all else.
    from components.cluster_access import ExpiredError, known_provider, provider  # noqa: PLC0415

    known, now = read_connection(), datetime.now(UTC)
    if not stack.whole:
        try:
            entering = known_provider(settings, known, now)
        except ExpiredError as error:
            raise pulumi.RunError(f"nothing was changed: {error}") from None
        return Entered(provider=entering, ask=asks_cluster(known.kubeconfig) if known else None)
    from components.ack_cluster import AckCluster, AckClusterArgs, cloud, connect  # noqa: PLC0415

    alicloud = cloud(settings)
    cluster = AckCluster("cluster", AckClusterArgs(settings), pulumi.ResourceOptions(providers=[alicloud]))
    access = connect(settings, cluster, known, now, pulumi.InvokeOptions(provider=alicloud))
    pulumi.export("cluster", {**cluster.outputs(), "expires": access.expires})
    pulumi.export("kubeconfig", access.kubeconfig)
    entering = provider(settings, access.kubeconfig)
    return Entered((cluster,), entering, cluster.load_balancer_id, asks_cluster(access.kubeconfig))


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
