"""`pulumi up` of a stack on an embedded or an existing cluster, and a table of what then answers.

This is the stock way, scripted: `pulumi stack select --create`, `pulumi up`, `pulumi stack output`, and a request to
every project through the ingress.
"""

import contextlib
import http.client
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from devcluster import commands, configuration, environment, process_tree
from devcluster.errors import Refused
from devcluster.failure import SetupError
from devcluster.instance import Instance
from devcluster.progress import Progress

LOWEST_PULUMI = (3, 200)
"""The oldest `pulumi` that knows objects in a project's typed config and `PULUMI_OPTION_…`."""
COMMITTED_NETWORK = "10.89.0."
"""What the committed stack files call the embedded network: instance 0."""
PROGRAM_PARTS = (
    "__main__.py",
    "language_host.py",
    "settings.py",
    "api_server.py",
    "registry.py",
    "docker_login.py",
    "http_client.py",
    "config_repository.py",
    "rollout.py",
    "sops.py",
    "smoke.py",
    "model",
    "manifests",
    "components",
    "Pulumi.yaml",
)
"""What a copy of the program needs, beside `projects/` and the stack files."""
REQUEST_SECONDS = 5.0
PULUMI_SECONDS = 1200.0


def copy_program(root: Path, folder: Path, *more: str) -> None:
    """Copy the program into a folder, which is made when it is not there; the copy runs with the same Python packages.

    Args:
        root: of the checkout.
        folder: of the copy.
        more: further files and folders of the checkout, such as `projects`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ".venv").symlink_to(root / ".venv")
    for part in (*PROGRAM_PARTS, *more):
        source = root / part
        if source.is_dir():
            shutil.copytree(source, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / part)


@dataclass(frozen=True)
class Row:
    """One project in the table.

    Args:
        project: its name in Gitea.
        tag: that runs, empty when it is not deployed.
        url: what a person types.
        pods: ready of wanted pods, `2/2`.
        answer: what the ingress answered: a status, or why there was none.
    """

    project: str
    tag: str
    url: str
    pods: str
    answer: str


def variables(instance: Instance | None) -> dict[str, str]:
    """Return the process environment in which `pulumi` and `kubectl` work on the cluster.

    Args:
        instance: the embedded one; None for the cluster, the backend and the `pulumi` that the caller's own
            environment names.
    """
    if instance is None:
        # The packages are beside this Python: a language host that knows no `virtualenv` finds them by PATH.
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        return {**os.environ, "PATH": path}
    entries = [*environment.path_entries(instance), os.environ.get("PATH", "")]
    return {**os.environ, **environment.variables(instance), "PATH": os.pathsep.join(entries)}


def stack_file(root: Path, stack: str, instance: Instance | None) -> Path:
    """Return the file with the stack's config: the committed one, or for another instance than 0 a copy of it.

    The copy speaks of the instance's own addresses and lies in the instance's state.
    """
    committed = root / f"Pulumi.{stack}.yaml"
    if not committed.exists():
        raise Refused([f"there is no stack file {committed.name}: choose test or uat"])
    if instance is None or instance.id == 0:
        return committed
    copy = instance.state / committed.name
    own = str(instance.network.network_address).removesuffix("0")
    copy.write_text(committed.read_text(encoding="utf-8").replace(COMMITTED_NETWORK, own), encoding="utf-8")
    return copy


def check_existing() -> None:
    """Check that a cluster that is not ours can be used.

    Raises:
        Refused: no kubeconfig, no `pulumi`, or one that is too old; all at once.
    """
    problems: list[str] = []
    if not os.environ.get("KUBECONFIG") and not (Path.home() / ".kube" / "config").exists():
        problems.append("no cluster is named: set KUBECONFIG to its kubeconfig")
    problems += [f"`{name}` is not on PATH: install it" for name in ("pulumi", "kubectl") if not shutil.which(name)]
    if shutil.which("pulumi"):
        text = subprocess.run(["pulumi", "version"], capture_output=True, text=True, check=False).stdout.strip()
        numbers = tuple(int(part) for part in text.lstrip("v").split(".")[:2] if part.isdigit())
        if numbers < LOWEST_PULUMI:
            wanted = ".".join(map(str, LOWEST_PULUMI))
            problems.append(f"`pulumi` is {text or 'unreadable'}: install {wanted} or newer")
    if problems:
        raise Refused(problems)


def deploy(root: Path, stack: str, instance: Instance | None, progress: Progress) -> list[Row]:
    """Bring a stack up and ask every project through the ingress.

    Args:
        root: of the repository.
        stack: its name.
        instance: the embedded cluster, None for an existing one.
        progress: is told every step.

    Raises:
        Refused: there is no such stack.
        SetupError: `pulumi` failed or did not end; its own lines were shown.
    """
    config = ["--config-file", str(stack_file(root, stack, instance))]
    process_environment = variables(instance)

    def pulumi(*arguments: str, quiet: bool = False) -> str:
        return _pulumi(root, process_environment, arguments, quiet=quiet)

    if shutil.which("git"):
        configuration.ensure_repository(root / ".dev" / "config")
    with progress.step(f"pulumi up --stack {stack}"):
        pulumi("stack", "select", "--create", stack, quiet=True)
        pulumi("up", "--stack", stack, *config, "--yes", "--skip-preview", "--suppress-outputs")
    with progress.step("answers through the ingress"):
        outputs = json.loads(pulumi("stack", "output", "--stack", stack, "--json", quiet=True))
        return _rows(outputs, _ready_pods(process_environment))


def table(rows: list[Row]) -> str:
    """Return the rows as aligned text with a heading."""
    cells = [("PROJECT", "TAG", "URL", "PODS", "ANSWER")]
    cells += [(row.project, row.tag or "not deployed", row.url, row.pods, row.answer) for row in rows]
    widths = [max(len(cell[column]) for cell in cells) for column in range(len(cells[0]))]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(cell, widths, strict=True)).rstrip() for cell in cells
    )


def _pulumi(root: Path, process_environment: Mapping[str, str], arguments: tuple[str, ...], *, quiet: bool) -> str:
    command = ["pulumi", *arguments, "--non-interactive"]
    pipe = subprocess.PIPE if quiet else None
    try:
        # In this process' own session, so that Ctrl+C and a closed terminal reach it too.
        with subprocess.Popen(
            command, cwd=root, env=process_environment, stdout=pipe, stderr=pipe, text=True
        ) as process:
            output, errors = process_tree.communicate(process, None, PULUMI_SECONDS)
    except FileNotFoundError as error:
        raise SetupError("`pulumi` is missing: run `make up`, or install it") from error
    except subprocess.TimeoutExpired as error:
        raise SetupError(
            f"`pulumi {arguments[0]}` did not end within {PULUMI_SECONDS:.0f} s: see which pods are not ready, and run "
            "it again; if it says that the stack is locked, run `pulumi cancel` first"
        ) from error
    if process.returncode != 0:
        said = (errors + output).strip()
        raise SetupError(f"`pulumi {arguments[0]}` failed (exit code {process.returncode})", said)
    return output


def _ready_pods(process_environment: Mapping[str, str]) -> dict[str, str]:
    """Return `namespace/Gitea project/slot` → `ready/wanted` pods."""
    command = ["kubectl", "get", "deployments", "--all-namespaces", "--output=json"]
    found: dict[str, str] = {}
    for item in json.loads(commands.run(command, env=process_environment))["items"]:
        metadata = item["metadata"]
        project = metadata.get("annotations", {}).get("package-platform/gitea-project")
        if project:
            ready = item["status"].get("readyReplicas", 0)
            slot = item["spec"]["selector"]["matchLabels"].get("slot", "")
            found[f"{metadata['namespace']}/{project}/{slot}"] = f"{ready}/{item['spec']['replicas']}"
    return found


def _rows(outputs: Mapping[str, Any], pods: Mapping[str, str]) -> list[Row]:
    rows: list[Row] = []
    for project, release in sorted(outputs["releases"].items()):
        endpoint = outputs["endpoints"].get(project, {})
        if not release or not endpoint:
            rows.append(Row(project, "", "-", "-", "-"))
            continue
        url, namespace = endpoint.get("url"), endpoint["namespace"]
        answer = _answer(url, endpoint.get("address")) if url else "no route"
        tag = release["tag"]
        rows.append(Row(project, tag, url or "-", pods.get(f"{namespace}/{project}/{release['slot']}", "-"), answer))
    return rows


def _answer(url: str, address: str | None) -> str:
    """Ask a URL, through `address` where its host name does not resolve; never raises."""
    try:
        parts = urlsplit(url)
        maker = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        with contextlib.closing(maker(address or parts.netloc, timeout=REQUEST_SECONDS)) as connection:
            connection.request("GET", parts.path or "/", headers={"Host": parts.netloc})
            response = connection.getresponse()
            response.read()
    # A name or port that can't be one is a ValueError or InvalidURL.
    except (OSError, http.client.HTTPException, ValueError) as error:
        return f"no answer: {error or type(error).__name__}"
    return f"{response.status} {response.reason}"
