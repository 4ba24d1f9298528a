"""``python -m pipeline jobs``: one Jenkins job per project file, called as the Gitea project."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer
import yaml

from pipeline import casc, jenkins_xml, keys
from pipeline.arguments import HERE, AsJson, Cwd, DryRun, SettingsFile
from pipeline.errors import EXIT_CODES, PipelineError
from pipeline.jenkins import Server
from pipeline.settings import Program
from pipeline.told import Told

SECRETS = f"""Write the webhooks' tokens and secrets to files, as Jenkins Configuration as Code reads them.

\b
One file per credential of jenkins.yaml, for its folder of secrets. Needs $PIPELINE_WEBHOOK_KEY (or …_FILE).

\b
Example:
  python -m pipeline jobs secrets /run/secrets

\b
{EXIT_CODES}
"""
APPLY = f"""Make or change the jobs and views of a Jenkins server, so that they are as `projects/` says.

\b
A job whose project file is gone is disabled, never deleted: its builds and their logs stay. Jobs that were not made
from projects/ are left alone; one that has a project's name is an error. Run it again whenever you like.
Needs $JENKINS_USER and $JENKINS_TOKEN (or $JENKINS_TOKEN_FILE); with --webhooks also $PIPELINE_WEBHOOK_KEY.

\b
Examples:
  python -m pipeline jobs apply --dry-run
  python -m pipeline jobs apply --jenkins https://jenkins.example.com --webhooks

\b
{EXIT_CODES}
"""
RENDER = f"""Write the XML of every job and view to a folder, without asking any server.

\b
Beside them: jenkins.yaml, with which a fresh Jenkins has all that the jobs need (Configuration as Code), and
plugins.txt. No secret is in them.

\b
Example:
  python -m pipeline jobs render .dev/jobs

\b
{EXIT_CODES}
"""

Action = Literal["create", "change", "disable"]
What = Literal["job", "view"]
app = typer.Typer(no_args_is_help=True, help="The projects' Jenkins jobs.")


@dataclass(frozen=True)
class Change:
    """What has to be done to one job or view.

    Args:
        what: Which of the two it is.
        name: Its name.
        action: What is done.
        xml: What it becomes; empty when it is disabled.
    """

    what: What
    name: str
    action: Action
    xml: str = ""


@app.callback()
def _group() -> None:
    """The projects' Jenkins jobs."""


@app.command(help=RENDER)
def render(
    folder: Annotated[Path, typer.Argument(help="Made if need be.")],
    *,
    cwd: Cwd = HERE,
    settings_file: SettingsFile = None,
) -> None:
    """Write the XML."""
    program = Program(cwd, settings_file)
    projects = program.projects()
    for kind, found in (
        ("jobs", jenkins_xml.jobs_xml(program.settings, projects)),
        ("views", jenkins_xml.views_xml(projects)),
    ):
        below = folder / kind
        below.mkdir(parents=True, exist_ok=True)
        for name, xml in found.items():
            (below / f"{name}.xml").write_text(xml, encoding="utf-8")
            typer.echo(f"{below / name}.xml")
    jenkins = program.settings.jenkins.url
    repository = program.settings.gitea.config_repository
    whole = casc.configuration(jenkins, [*projects, repository], projects, repository)
    (folder / "jenkins.yaml").write_text(yaml.safe_dump(whole, sort_keys=False), encoding="utf-8")
    (folder / "plugins.txt").write_text("".join(f"{name}\n" for name in casc.PLUGINS), encoding="utf-8")
    typer.echo(f"{folder / 'jenkins.yaml'}\n{folder / 'plugins.txt'}")


@app.command(help=SECRETS)
def secrets(
    folder: Annotated[Path, typer.Argument(help="Made if need be.")],
    *,
    cwd: Cwd = HERE,
    settings_file: SettingsFile = None,
) -> None:
    """Write the secrets."""
    program, key = Program(cwd, settings_file), keys.webhook_key()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name in (*program.projects(), program.settings.gitea.config_repository):
        for credential, secret in _secrets_of(name, key):
            path = folder / credential
            path.touch(mode=0o600)
            path.chmod(0o600)
            path.write_text(secret, encoding="utf-8")
            typer.echo(str(path))


@app.command(help=APPLY)
def apply(  # noqa: PLR0913 - options of a command line
    *,
    jenkins: Annotated[
        str, typer.Option("--jenkins", help="Root of the server; by default that of pipeline.yaml.")
    ] = "",
    dry_run: DryRun = False,
    webhooks: Annotated[
        bool, typer.Option("--webhooks", help="Write the webhooks' tokens and secrets as Jenkins credentials too.")
    ] = False,
    as_json: AsJson = False,
    cwd: Cwd = HERE,
    settings_file: SettingsFile = None,
) -> None:
    """Bring a server in order."""
    with Told(dry_run=dry_run, as_json=as_json) as told:
        program = Program(cwd, settings_file)
        key = keys.webhook_key() if webhooks else ""
        server = Server.from_environment((jenkins or program.settings.jenkins.url).rstrip("/"))
        run(server, program, told, key)


def run(server: Server, program: Program, told: Told, key: str = "") -> None:
    """Make or change every job and view, or say what would be done.

    Args:
        server: The Jenkins server.
        program: Whose projects have the jobs.
        told: Takes what is done.
        key: From which the webhooks' credentials are derived; without it none are written.

    Raises:
        PipelineError: If the server does not answer, or refuses, or a job that is not ours has a project's name.
    """
    settings, projects = program.settings, program.projects()
    wanted_jobs, wanted_views = jenkins_xml.jobs_xml(settings, projects), jenkins_xml.views_xml(projects)
    if key and not told.dry_run:
        _write_credentials(server, wanted_jobs, key, told)
    present = set(server.jobs())
    changes = [
        *plan_jobs(wanted_jobs, {name: server.job(name) for name in sorted(present)}),
        *plan_views(wanted_views, {name: server.view(name) for name in wanted_views}),
    ]
    for change in changes:
        if not told.dry_run:
            carry_out(server, change)
        told.change(f"{change.what} {change.name}", change.action)
    if not changes:
        told.line("every job and view is right")


def plan_jobs(wanted: Mapping[str, str], found: Mapping[str, str]) -> list[Change]:
    """Return what has to change. Pure.

    Args:
        wanted: Job → the XML that it has to have.
        found: Job → XML, of every job at the server.

    Raises:
        PipelineError: If a job that is not ours has a project's name, a line for each.
    """
    foreign = [name for name in wanted if name in found and not jenkins_xml.is_ours(found[name])]
    if foreign:
        raise PipelineError(
            [f"job {name} was not made from projects/: rename it, or delete it, and run this again" for name in foreign]
        )
    changes: list[Change] = []
    for name, xml in wanted.items():
        if name not in found:
            changes.append(Change("job", name, "create", xml))
        elif not same(xml, found[name]):
            changes.append(Change("job", name, "change", xml))
    gone = [name for name, xml in found.items() if name not in wanted and jenkins_xml.is_ours(xml)]
    return [*changes, *(Change("job", each, "disable") for each in gone if not jenkins_xml.disabled_xml(found[each]))]


def plan_views(wanted: Mapping[str, str], found: Mapping[str, str | None]) -> list[Change]:
    """Return what has to change; a view is ours by its name alone. Pure."""
    changes: list[Change] = []
    for name, xml in wanted.items():
        present = found.get(name)
        if present is None:
            changes.append(Change("view", name, "create", xml))
        elif not same(xml, present):
            changes.append(Change("view", name, "change", xml))
    return changes


def same(wanted: str, found: str) -> bool:
    """Tell whether a server has what is wanted. Pure.

    Jenkins writes down what it was given in its own way: with the versions of its plugins, and elements of its own
    accord. So of every element that is wanted there have to be as many, in order, with the same text; elements of other
    names do not count.
    """
    try:
        # What is read is a job of our own Jenkins server; Python's parser resolves no external entities.
        return _within(_parsed(wanted), _parsed(found))
    except ET.ParseError:
        return False


def carry_out(server: Server, change: Change) -> None:
    """Do it.

    Raises:
        PipelineError: If the server does not answer, or refuses.
    """
    if change.action == "disable":
        server.disable_job(change.name)
        return
    steps = {
        ("job", "create"): server.create_job,
        ("job", "change"): server.change_job,
        ("view", "create"): server.create_view,
        ("view", "change"): server.change_view,
    }
    steps[change.what, change.action](change.name, change.xml)


def _write_credentials(server: Server, jobs: Mapping[str, str], key: str, told: Told) -> None:
    for name in jobs:
        for credential, secret in _secrets_of(name, key):
            server.write_secret_text(credential, f"webhook of {name}", secret)
        told.change(f"credentials {name}", "written")


def _secrets_of(repository: str, key: str) -> list[tuple[str, str]]:
    """Return the id and the value of each credential of a repository's webhook."""
    return [
        (jenkins_xml.token_credential(repository), keys.hook_token(key, repository)),
        (jenkins_xml.secret_credential(repository), keys.hook_secret(key, repository)),
    ]


def _parsed(text: str) -> ET.Element:
    # XML 1.1, which Jenkins declares, is not known to Python's parser; the declaration carries nothing else.
    body = text.split("?>", 1)[1] if text.lstrip().startswith("<?xml") else text
    return ET.fromstring(body)  # noqa: S314 - see `same`


def _within(wanted: ET.Element, found: ET.Element) -> bool:
    if (wanted.text or "").strip() != (found.text or "").strip():
        return False
    names = {child.tag for child in wanted}
    return all(_pairs(_said(wanted, name), _said(found, name)) for name in names)


def _pairs(wanted: list[ET.Element], found: list[ET.Element]) -> bool:
    return len(wanted) == len(found) and all(map(_within, wanted, found))


def _said(parent: ET.Element, name: str) -> list[ET.Element]:
    """Return the children of that name that say something: Jenkins leaves out what is empty."""
    return [child for child in parent if child.tag == name and (len(child) or (child.text or "").strip())]
