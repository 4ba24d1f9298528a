"""What a stack has made beside its projects, and can't move: its namespace, and that of its ingress. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from model.environment import Environment
from model.ingress import AlbIngress
from model.problems import Problem


def namespace_problems(
    file: str, prefix: str, environment: Environment, *, platform: bool, made: Mapping[str, str]
) -> list[Problem]:
    """Return what would end a namespace with all that is in it, or all proxies at once.

    Args:
        file: Name of the stack file.
        prefix: Put before each field.
        environment: As the file has it.
        platform: Whether the stack makes the environment's namespace.
        made: What ``model.release.namespaces_of`` tells.
    """
    problems: list[Problem] = []
    for urn, name in sorted(made.items()):
        own = "$" not in urn.split("::")[2]  # the ingress's is in a component
        if own and not platform:
            message = (
                f"the stack made namespace {name}, and would delete it with all that is in it, of other stacks too: "
                f"give it to the stack that is to own it first, `pulumi state move --source … --dest … '{urn}'`"
            )
            problems.append(Problem(file, f"{prefix}platform", message))
        elif own and name != environment.namespace:
            message = (
                f"the stack made namespace {name}, and would delete it with all that is in it, of other stacks too: "
                "keep it, and make another stack for another namespace"
            )
            problems.append(Problem(file, f"{prefix}environment.namespace", message))
        ingress = environment.ingress.ha
        moves = ingress is not None and not isinstance(ingress, AlbIngress) and ingress.namespace != name
        if not own and moves:
            message = (
                f"the proxies are in {name}, where they have the ports of their nodes: all would end before others "
                "could start. Keep it; or, with a gap, take ingress.ha out, `pulumi up`, and put it in again"
            )
            problems.append(Problem(file, f"{prefix}environment.ingress.ha.namespace", message))
    return problems
