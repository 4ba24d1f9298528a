"""The Pulumi program: settings → namespace → ingress → projects → exports."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pulumi
from pulumi_kubernetes.core.v1 import Namespace, Secret

from components import FrontendApp, FrontendAppArgs, HaIngress, HaIngressArgs, PackageApp, PackageAppArgs
from components._apply import apply
from components.storage import declare_class, keep
from manifests.namespace import namespace
from manifests.secrets import pull_secret
from model.problems import SettingsError
from model.stack import Application, Stack
from rollout import stateful_rollout
from settings import load_stack, read_outputs
from smoke import check


def declare(stack: Stack, application: Application, opts: pulumi.ResourceOptions) -> PackageApp | FrontendApp:
    """Declare one project's component."""
    environment, now = stack.environment, datetime.now(UTC).isoformat(timespec="seconds")
    asks = check(environment), stateful_rollout(environment)
    if application.project.kind == "backend":
        return PackageApp(application.gitea_name, PackageAppArgs(application, environment, now, *asks), opts)
    return FrontendApp(application.gitea_name, FrontendAppArgs(application, environment, now, *asks), opts)


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


def main() -> None:
    """Declare everything that the selected stack consists of."""
    stack = load_stack()
    if stack.whole:
        tell(stack)
    environment = stack.environment
    first: list[pulumi.Resource] = []
    if stack.platform:
        # With the namespace all volumes would go, whatever is said of each.
        guarded = pulumi.ResourceOptions(protect=stack.keeps_data or None)
        first.append(apply(Namespace, environment.namespace, namespace(environment), guarded))
        if credentials := stack.cluster_secrets.registry:
            manifest = pull_secret(environment, environment.namespace, credentials)
            first.append(apply(Secret, "registry", manifest, pulumi.ResourceOptions(depends_on=list(first))))
    if environment.storage.nfs and stack.whole:
        first.append(declare_class(environment))
    if environment.ingress.ha and stack.whole:
        ingress = HaIngress("ingress", HaIngressArgs(environment, environment.ingress.ha, stack.cluster_secrets))
        pulumi.export("ingress", {"className": ingress.class_name, "addresses": ingress.addresses})
        first.append(ingress)
    apps = {
        application.gitea_name: declare(stack, application, pulumi.ResourceOptions(depends_on=first))
        for application in stack.deployed
    }
    keep(stack.left_claims, environment, pulumi.ResourceOptions(depends_on=first))
    export(stack, apps, {} if stack.whole else read_outputs())


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
