"""Making a large stack out of a small one: the state of further projects, copied from those that were deployed. Pure.

Creating a thousand resources takes longer than everything that is measured. A copied state is proven by the first
preview, which must find no change.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from bench.generated import GeneratedProject
from manifests.frontend_app import frontend_app_plan
from manifests.package_app import package_app_plan

TEMPLATES = {"backend": GeneratedProject(1), "frontend": GeneratedProject(3)}
"""Kind of project → which one is copied; never the first, whose tag is changed."""
SMALLEST = 1 + max(project.number for project in TEMPLATES.values())
"""Projects that a stack needs for both templates to be there."""

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_MANIFEST_FIELDS = ("apiVersion", "kind", "metadata", "spec", "automountServiceAccountToken")


def copied_resources(
    state: Mapping[str, Any], project: GeneratedProject, config: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Return the resources of a project that is not in the state, as its template has them.

    Args:
        state: As `pulumi stack export` gives it; it holds the templates.
        project: The project to make.
        config: Of the stack, as its stack file has it.

    Raises:
        ValueError: If the template does not run its first tag.
    """
    template = TEMPLATES[project.kind]
    text = json.dumps([each for each in state["deployment"]["resources"] if _belongs(each, template)])
    (digest,) = set(_DIGEST.findall(text))
    old, new = (revision(each, digest, config) for each in (template, project))
    if old not in text:
        raise ValueError(f"{template.gitea_name} does not run {template.first_tag} as it is declared")
    # All names, tags and paths differ by this mark alone, and no digest or uid can hold it: `p` is no hexadecimal.
    text = text.replace(old, new).replace(template.mark, project.mark)
    return json.loads(text.replace(template.mark.upper(), project.mark.upper()))


def revision(project: GeneratedProject, digest: str, config: Mapping[str, Any]) -> str:
    """Return the hash of a project's pods, by which its record and their labels know its first release.

    Args:
        project: Which one.
        digest: Of its image.
        config: Of the stack, as its stack file has it.
    """
    application, environment = project.declared(digest, config)
    plan = package_app_plan if project.kind == "backend" else frontend_app_plan
    return plan(application, environment).record.slots["main"].revision


def with_copies(state: Mapping[str, Any], copies: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the state with the resources of further projects."""
    return {**state, "deployment": {**state["deployment"], "resources": [*state["deployment"]["resources"], *copies]}}


def manifests(resources: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the Kubernetes objects of resources as one `List`, for kubectl."""
    objects = [
        {key: value for key, value in each["inputs"].items() if key in _MANIFEST_FIELDS}
        for each in resources
        if each["type"].startswith("kubernetes:")
    ]
    return {"apiVersion": "v1", "kind": "List", "items": objects}


def _belongs(resource: Mapping[str, Any], project: GeneratedProject) -> bool:
    return project.urn in (resource["urn"], resource.get("parent"))
