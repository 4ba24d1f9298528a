"""`python -m devcluster`: the command line of the embedded cluster."""

import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from devcluster import cluster, demo, deploy, environment, kubectl, machine
from devcluster.errors import Refused
from devcluster.failure import SetupError
from devcluster.instance import MAXIMUM_ID, Instance
from devcluster.process_tree import heed_interrupts
from devcluster.processes import StuckProcessError
from devcluster.progress import Progress
from pipeline.errors import PipelineError

EXIT_FAILED = 1
EXIT_REFUSED = 2
ROOT = Path(__file__).resolve().parent.parent

EXIT_CODES = "Exit codes: 0 fine, 1 something failed, 2 refused or wrong usage (nothing was changed)."
HELP = f"""A real Kubernetes cluster of three "VMs" on this Linux machine, for development and tests. Needs root.

Examples:

\b
  python -m devcluster up                     three nodes, DNS, registry with sample images
  . .dev/env                                  then kubectl and pulumi work on it
  python -m devcluster node-down n2           cut the power of a node; node-up brings it back
  python -m devcluster --id 3 up --bare       a second one beside it, nodes only
  python -m devcluster demo                   from a `git push` to the cluster, with a real Gitea
  python -m devcluster down                   everything off, disks kept; `up` resumes
  python -m devcluster down --wipe            everything gone

{EXIT_CODES}
"""


def _ends(*examples: str, codes: str = EXIT_CODES) -> str:
    """Return what a command's help ends with."""
    lines = "".join(f"\n  python -m devcluster {example}" for example in examples)
    return f"\b\nExamples:{lines}\n\n{codes}"


app = typer.Typer(
    help=HELP, no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False
)
PASS_ON: dict[str, Any] = {"allow_extra_args": True, "ignore_unknown_options": True, "allow_interspersed_args": False}
"""For a command whose further words are another program's, its options among them."""


@app.callback()
def select_instance(
    context: typer.Context,
    instance_id: Annotated[
        int,
        typer.Option("--id", envvar="DEVCLUSTER_ID", min=0, max=MAXIMUM_ID, help="Which of the instances 0 to 9."),
    ] = 0,
) -> None:
    """Remember the instance for the command that follows."""
    context.obj = Instance(instance_id, ROOT)


@app.command(epilog=_ends("up", "up --bare"))
def up(
    context: typer.Context,
    *,
    bare: Annotated[bool, typer.Option("--bare", help="Nodes only: no DNS and no images.")] = False,
) -> None:
    """Start the cluster, or complete it; prints the seconds of each step."""
    instance = _instance(context)
    progress = Progress()
    try:
        cluster.up(instance, progress, bare=bare)
    finally:
        if progress.times:
            print(progress.table(), file=sys.stderr)
    print(f"Kubernetes API {instance.api_server}")
    print(f"registry       {instance.registry_endpoint}")
    if not bare:
        print(f"ingress        http://{instance.ingress_addresses[0]}/ once the stack test is up")
    print(f"next           . {_env_file(instance)}")


@app.command(epilog=_ends("down", "down --wipe"))
def down(
    context: typer.Context,
    *,
    wipe: Annotated[bool, typer.Option("--wipe", help="Remove its state too: disks, images, Pulumi state.")] = False,
) -> None:
    """Switch everything off and leave the machine as it was before."""
    instance = _instance(context)
    cluster.down(instance, Progress(), wipe=wipe)
    print(f"instance {instance.id} is down" + (", its state is removed" if wipe else ""))


@app.command(epilog=_ends("status --json"))
def status(
    context: typer.Context,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Tell how every machine is. Exit code 1 when one is off or not ready."""
    rows = cluster.status(_instance(context))
    if as_json:
        print(json.dumps([dataclasses.asdict(row) for row in rows], indent=2))
    else:
        for row in rows:
            print(f"{row.name:<5}{row.address:<14}{'on' if row.power else 'off':<5}{row.state}")
    if not all(row.power and row.state in ("Ready", "answers") for row in rows):
        raise typer.Exit(EXIT_FAILED)


@app.command("node-down", epilog=_ends("node-down n2"))
def node_down(context: typer.Context, node: str) -> None:
    """Cut the power of NODE (n1, n2 or n3): all its processes end at once."""
    was_on = cluster.node_down(_instance(context), node)
    print(f"{node} is off" if was_on else f"{node} was off already")


@app.command("node-up", epilog=_ends("node-up n2"))
def node_up(context: typer.Context, node: str) -> None:
    """Switch NODE (n1, n2 or n3) on again; it joins by itself within seconds."""
    was_off = cluster.node_up(_instance(context), node)
    print(f"{node} boots" if was_off else f"{node} is on already")


@app.command(
    "node-exec",
    context_settings=PASS_ON,
    epilog=_ends(
        "node-exec n1 ip route", "node-exec n1", codes="Exit codes: the command's own; 2 there is no such node."
    ),
)
def node_exec(context: typer.Context, node: str) -> None:
    """Run a command inside NODE (n1, n2 or n3); a shell, when none is named."""
    instance = _instance(context)
    command = machine.enter_command(cluster.find_node(instance, node), context.args or ["bash"])
    os.execvp(command[0], command)  # noqa: S606 - becomes the command


@app.command("deploy", epilog=_ends("deploy", "deploy uat", "deploy test --existing"))
def deploy_stack(
    context: typer.Context,
    stack: Annotated[str, typer.Argument(help="Name of the stack: test or uat.")] = "test",
    *,
    existing: Annotated[
        bool, typer.Option("--existing", help="Use the cluster of KUBECONFIG and the `pulumi` on PATH.")
    ] = False,
) -> None:
    """Run `pulumi up` of STACK and show what answers. Exit code 1 when a deployed project does not."""
    progress = Progress()
    if existing:
        deploy.check_existing()
    try:
        rows = deploy.deploy(ROOT, stack, None if existing else _instance(context), progress)
    finally:
        if progress.times:
            print(progress.table(), file=sys.stderr)
    print(deploy.table(rows))
    if not all(row.answer.startswith("200") or row.url == "-" for row in rows):
        raise typer.Exit(EXIT_FAILED)


@app.command("demo", epilog=_ends("demo"))
def run_demo(context: typer.Context) -> None:
    """Run the chain from `git push` to the cluster for real, and tell it; the cluster and the stack `test` are up."""
    demo.run(_instance(context), Progress())


@app.command("kubectl", context_settings={**PASS_ON, "help_option_names": []})
def run_kubectl(context: typer.Context) -> None:
    """Run kubectl against the cluster; everything after the word is kubectl's."""
    instance = _instance(context)
    command = kubectl.command(instance, *context.args)
    if not instance.kubeconfig.exists() or not Path(command[0]).exists():
        raise SetupError(f"instance {instance.id} was never up: run `python -m devcluster --id {instance.id} up`")
    os.execv(command[0], command)  # noqa: S606 - becomes kubectl


@app.command(epilog=_ends("env > my-env"))
def env(context: typer.Context) -> None:
    """Print the shell variables with which stock commands work on the cluster."""
    print(environment.script(_instance(context)), end="")


@app.command(epilog=_ends("facts --json"))
def facts(
    context: typer.Context,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Print addresses, names and paths of the cluster."""
    known = environment.facts(_instance(context))
    if as_json:
        print(json.dumps(known, indent=2))
    else:
        for name, value in known.items():
            print(f"{name:<18}{value}")


def _instance(context: typer.Context) -> Instance:
    if not isinstance(context.obj, Instance):
        raise TypeError("the instance is chosen before the command runs")
    return context.obj


def _env_file(instance: Instance) -> Path:
    return instance.root / ".dev" / "env" if instance.id == 0 else instance.state / "env"


def main() -> None:
    """Run the command line; errors are lines on standard error and an exit code."""
    heed_interrupts()
    try:
        app()
    except Refused as refusal:
        for problem in refusal.problems:
            print(f"refused: {problem}", file=sys.stderr)
        sys.exit(EXIT_REFUSED)
    except SetupError as error:
        if error.details:
            print(error.details, file=sys.stderr)
        print(f"error: {error}", file=sys.stderr)
        sys.exit(EXIT_FAILED)
    except (PipelineError, StuckProcessError) as error:
        for line in str(error).splitlines():
            print(f"error: {line}", file=sys.stderr)
        sys.exit(EXIT_FAILED)


if __name__ == "__main__":
    main()
