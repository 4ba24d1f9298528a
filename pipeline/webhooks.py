"""``python -m pipeline webhooks``: every project's webhook in Gitea, made or repaired from ``projects/``.

A webhook is ours when it leads to our job server, or has our token; others are left alone. Gitea tells everything
of a webhook but its secret, and changes everything but that. So the secret is derived from the same key as the token in
the Authorization header, which Gitea does tell: where the token is not the right one, the webhook is removed and made
anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from model.fields import plain_mapping
from pipeline import keys
from pipeline.arguments import HERE, AsJson, Cwd, DryRun, SettingsFile
from pipeline.errors import EXIT_CODES, PipelineError
from pipeline.gitea import Gitea, GiteaError
from pipeline.settings import Program, Settings
from pipeline.told import Told

TRIGGER_PATH = "/generic-webhook-trigger/invoke"
"""Where Jenkins' Generic Webhook Trigger plugin listens: one address for all jobs, the token says which."""
HELP = f"""Make or repair the webhook of every project, and of the config repository.

\b
Each one tells the job server of pushes to the release branch, signed with a secret of its own. Run it again whenever
you like: what is right stays untouched. Needs $GITEA_TOKEN and $PIPELINE_WEBHOOK_KEY (or …_FILE).

\b
Examples:
  python -m pipeline webhooks apply --dry-run
  python -m pipeline webhooks apply
  python -m pipeline webhooks apply --renew        after somebody changed a secret by hand

\b
{EXIT_CODES}
"""

app = typer.Typer(no_args_is_help=True, help="The projects' webhooks in Gitea.")


@dataclass(frozen=True)
class Wanted:
    """A webhook as it has to be.

    Args:
        repository: Its repository's name.
        url: Where it leads.
        branch: The only one whose pushes are told.
        token: Names the job.
        secret: Signs what is sent.
    """

    repository: str
    url: str
    branch: str
    token: str
    secret: str

    def __repr__(self) -> str:
        return f"Wanted({self.repository!r}, {self.url!r}, {self.branch!r})"

    def body(self) -> dict[str, Any]:
        """Return it as Gitea's API takes it."""
        return {
            "type": "gitea",
            "active": True,
            "events": ["push"],
            "branch_filter": self.branch,
            "authorization_header": f"Bearer {self.token}",
            "config": {"url": self.url, "content_type": "json", "secret": self.secret},
        }


@dataclass(frozen=True)
class Change:
    """What has to be done to one repository's webhooks.

    Args:
        repository: Its name.
        why: For people; without any secret.
        create: Whether one is made.
        edit: Number of the one that is changed, if any.
        remove: Numbers of those that go.
    """

    repository: str
    why: str
    create: bool = False
    edit: int | None = None
    remove: tuple[int, ...] = ()


@app.callback()
def _group() -> None:
    """The projects' webhooks in Gitea."""


@app.command(help=HELP)
def apply(
    *,
    dry_run: DryRun = False,
    renew: Annotated[bool, typer.Option("--renew", help="Make every one anew, with its secret.")] = False,
    as_json: AsJson = False,
    cwd: Cwd = HERE,
    settings_file: SettingsFile = None,
) -> None:
    """Make or repair the webhooks."""
    with Told(dry_run=dry_run, as_json=as_json) as told:
        program = Program(cwd, settings_file)
        settings, key = program.settings, keys.webhook_key()
        wanted = wanted_hooks(settings, branches(program), key)
        token = keys.secret(keys.GITEA_TOKEN, "an access token of Gitea")
        with Gitea(settings.gitea.url, token) as gitea:
            run(gitea, settings.gitea.owner, wanted, told, renew=renew)


def branches(program: Program) -> Mapping[str, str]:
    """Return repository → its release branch, for every project and the config repository.

    Raises:
        RefusedError: With a line for each problem of all files.
    """
    gitea = program.settings.gitea
    own = {name: project.build.branch or gitea.branch for name, project in program.projects().items()}
    return {**own, gitea.config_repository: gitea.branch}


def wanted_hooks(settings: Settings, release_branches: Mapping[str, str], key: str) -> list[Wanted]:
    """Return every webhook that has to be. Pure."""
    url = f"{settings.jenkins.url}{TRIGGER_PATH}"
    return [
        Wanted(name, url, branch, keys.hook_token(key, name), keys.hook_secret(key, name))
        for name, branch in release_branches.items()
    ]


def plan(wanted: Wanted, found: Sequence[Mapping[str, Any]], *, renew: bool = False) -> Change | None:
    """Return what has to change, None when nothing has. Pure.

    Args:
        wanted: The webhook as it has to be.
        found: All webhooks of the repository, as Gitea tells them.
        renew: Make it anew, whatever is there.
    """
    header = f"Bearer {wanted.token}"
    ours = [hook for hook in found if hook.get("authorization_header") == header or _config(hook, "url") == wanted.url]
    if not ours:
        return Change(wanted.repository, "is made", create=True)
    good = [hook for hook in ours if hook.get("authorization_header") == header]
    if renew or not good:
        why = "is made anew" if renew else "is made anew: its key is another"
        return Change(wanted.repository, why, create=True, remove=tuple(int(hook["id"]) for hook in ours))
    kept, doubles = good[0], tuple(int(hook["id"]) for hook in ours if hook is not good[0])
    wrong = _differences(wanted, kept)
    if not wrong and not doubles:
        return None
    reasons = [
        *wrong,
        *([f"{len(doubles)} more of it go" if len(doubles) > 1 else "a second one goes"] * bool(doubles)),
    ]
    return Change(
        wanted.repository,
        f"is repaired: {'; '.join(reasons)}",
        edit=int(kept["id"]) if wrong else None,
        remove=doubles,
    )


def run(gitea: Gitea, owner: str, wanted: Iterable[Wanted], told: Told, *, renew: bool = False) -> None:
    """Bring every webhook in order, or say what would be done; one repository's failure stops no other.

    Raises:
        PipelineError: With a line for each repository that is missing, or whose webhook could not be put in order.
    """
    failed: list[str] = []
    for each in wanted:
        try:
            found = gitea.hooks(owner, each.repository)
            if found is None:
                failed.append(f"{owner}/{each.repository}: Gitea has no such repository, or the token may not see it")
                continue
            change = plan(each, found, renew=renew)
            if change and not told.dry_run:
                _carry_out(gitea, owner, each, change)
        except GiteaError as error:
            failed += error.lines
        else:
            if change:
                told.change(each.repository, change.why)
            else:
                told.right(each.repository)
    if failed:
        raise PipelineError(failed)


def _carry_out(gitea: Gitea, owner: str, wanted: Wanted, change: Change) -> None:
    # Made before the old one goes: in between a push is told twice, which does no harm, and never not at all.
    if change.create:
        gitea.create_hook(owner, wanted.repository, wanted.body())
    if change.edit is not None:
        gitea.edit_hook(owner, wanted.repository, change.edit, wanted.body())
    for number in change.remove:
        gitea.delete_hook(owner, wanted.repository, number)


def _differences(wanted: Wanted, hook: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with a webhook of the right key, a part of a line for each."""
    body = wanted.body()
    compared: list[tuple[str, object, object]] = [
        ("url", _config(hook, "url"), wanted.url),
        ("content_type", _config(hook, "content_type"), "json"),
        ("active", hook.get("active"), body["active"]),
        # Gitea tells them in any order.
        ("events", sorted(hook.get("events") or ()), body["events"]),
        ("branch_filter", hook.get("branch_filter"), body["branch_filter"]),
    ]
    return [f"{name} is {there!r}, not {right!r}" for name, there, right in compared if there != right]


def _config(hook: Mapping[str, Any], name: str) -> str:
    return str((plain_mapping(hook.get("config")) or {}).get(name, ""))
