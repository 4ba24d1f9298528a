"""The Pulumi program: settings → namespace → projects → exports."""

from typing import Any

import pulumi
from pulumi_kubernetes.core.v1 import Namespace

from components import FrontendApp, FrontendAppArgs, PackageApp, PackageAppArgs
from components._apply import apply
from manifests.namespace import namespace
from model.problems import SettingsError
from model.release import Record
from model.stack import Application, Stack
from settings import load_stack, read_records


def declare(stack: Stack, application: Application, record: Record | None, opts: pulumi.ResourceOptions) -> Any:
    """Declare one project's component."""
    if application.project.kind == "backend":
        return PackageApp(application.gitea_name, PackageAppArgs(application, stack.environment, record), opts)
    return FrontendApp(application.gitea_name, FrontendAppArgs(application, stack.environment, record), opts)


def main() -> None:
    """Declare everything that the selected stack consists of."""
    stack, records = load_stack(), read_records()
    environment = stack.environment
    first: list[pulumi.Resource] = []
    if stack.platform:
        first.append(apply(Namespace, environment.namespace, namespace(environment), pulumi.ResourceOptions()))
    for application in stack.waiting:
        pulumi.info(f"{application.gitea_name} has no tag and is not deployed: set package-platform:tags for it")
    apps = {
        application.gitea_name: declare(
            stack, application, records.get(application.name), pulumi.ResourceOptions(depends_on=first)
        )
        for application in stack.deployed
    }
    waiting = {application.gitea_name: None for application in stack.waiting}
    pulumi.export("releases", {name: app.release for name, app in apps.items()} | waiting)
    pulumi.export(
        "endpoints",
        {
            name: {"url": app.url, "address": environment.ingress.address, "namespace": environment.namespace}
            for name, app in apps.items()
        },
    )


try:
    main()
except SettingsError as error:
    raise pulumi.RunError(f"nothing was changed, the settings have problems:\n{error}") from None
