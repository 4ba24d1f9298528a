"""`pulumi up` and its sisters on a real cluster: what they make, change, restore, refuse and leave behind."""

import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.embedded import Cluster
from tests.cluster.program import Program, changed

BACK_ENDS = {
    "SJZY.Package.Api": "sjzy-package-api",
    "SJZY.Package.Output.Api": "sjzy-package-output-api",
    "SJZY.Package.Task.Api": "sjzy-package-task-api",
}
FRONT_ENDS = {
    "packet": "packet",
    "packet_bsi_pc_ui": "packet-bsi-pc-ui",
    "packet_label": "packet-label",
    "packet_outcustome_pc_ui": "packet-outcustome-pc-ui",
    "packet_shopman_web_ui": "packet-shopman-web-ui",
}
PROJECTS = {**BACK_ENDS, **FRONT_ENDS}
GITEA_PROJECT = "package-platform/gitea-project"
SCRIPT = re.compile(r'<script src="(assets/app\.[0-9a-f]{8}\.js)">')
SLOT = re.compile(r"-(main|blue|green)\Z")
WITHOUT_TAG = "packet_label"
NO_CHANGES = "--expect-no-changes"


@pytest.fixture
def uat(cluster: Cluster, program: Program) -> Program:
    """The stack `uat` of the same copy of the program, with nothing deployed yet."""
    return Program.create(cluster, program.folder, "uat")


def tag_of(program: Program, project: str) -> str:
    """Return the tag that answers for a project, after checking that it is the project that answers."""
    answer = program.answer(project)
    assert answer.status_code == 200, f"{project}: {answer.status_code} {answer.text[:300]}"
    if project in BACK_ENDS:
        assert answer.json()["project"] == project
        return answer.json()["tag"]
    assert f'<meta name="project" content="{project}">' in answer.text
    return answer.text.split('<meta name="tag" content="')[1].split('"')[0]


def lasting(identities: dict[str, dict[str, Any]], *without: str) -> dict[str, dict[str, Any]]:
    """Return the identities of all objects but those of some projects, by their Kubernetes names."""
    own = re.compile(rf"\w+/({'|'.join(without)})(-(main|blue|green|assets))?(-[0-9a-f]{{8,10}}(-\w{{5}})?)?\Z")
    return {name: value for name, value in identities.items() if not own.match(name)}


def test_all_eight_answer_with_their_tag(program: Program) -> None:
    assert {project: tag_of(program, project) for project in PROJECTS} == program.tags
    releases = program.outputs()["releases"]
    assert {project: releases[project]["tag"] for project in PROJECTS} == program.tags
    for project in FRONT_ENDS:
        script = SCRIPT.search(program.answer(project).text)
        assert script, project
        loaded = program.answer(project, f"/{script.group(1)}")
        assert loaded.status_code == 200
        assert f'project: "{project}", tag: "{program.tags[project]}"' in loaded.text


def test_every_object_is_named_by_its_gitea_project(program: Program, cluster: Cluster) -> None:
    shown = cluster.kubectl("get", "ingress,deploy,svc,pods", f"--namespace={program.namespace}", "--output=name")
    names = shown.split()
    for kind in ("ingress.networking.k8s.io", "deployment.apps", "service"):
        of_kind = {SLOT.sub("", name.split("/")[1]) for name in names if name.startswith(f"{kind}/")}
        assert of_kind == set(PROJECTS.values()), kind
    items = program.get("ingresses,deployments,services,pods,poddisruptionbudgets")
    by_project = {(item["kind"], item["metadata"]["annotations"][GITEA_PROJECT]) for item in items}
    kinds = ("Ingress", "Deployment", "Service", "Pod", "PodDisruptionBudget")
    assert by_project == {(kind, project) for kind in kinds for project in PROJECTS}
    for item in items:
        own = PROJECTS[item["metadata"]["annotations"][GITEA_PROJECT]]
        assert item["metadata"]["name"].startswith(own)
        assert item["metadata"]["labels"]["app.kubernetes.io/name"] == own
    releases = program.outputs()["releases"]
    live = {(project, releases[project]["slot"]): 1 if "Task" in project else 2 for project in PROJECTS}
    running = Counter(
        (item["metadata"]["annotations"][GITEA_PROJECT], item["metadata"]["labels"]["slot"])
        for item in items
        if item["kind"] == "Pod" and item["status"]["phase"] == "Running"
    )
    assert {slot: running[slot] for slot in live} == live, "two of each, one of the task runner"


def test_again_nothing_changes_and_a_preview_shows_the_one_tag_that_will(program: Program) -> None:
    before = program.identities()
    program.up(NO_CHANGES)
    program.refresh(NO_CHANGES)
    assert program.identities() == before

    project, old = "SJZY.Package.Output.Api", program.tags["SJZY.Package.Output.Api"]
    new = program.other_tag(project)
    with changed(program.stack_file, program.stack_file.read_text()):
        program.set_tag(project, new)
        # The failure is the point: `--expect-no-changes`, on which the checks above rest, sees one tag.
        previewed = program.preview(NO_CHANGES, check=False)
    shown = previewed.stdout
    assert previewed.returncode != 0, shown
    steps, _, _ = shown.partition("--outputs:--")
    urns = re.findall(r"\[urn=urn:pulumi:test::package-platform::(\S+)\]", steps)
    owner = "package-platform:index:PackageApp$kubernetes"
    assert urns == [
        "pulumi:pulumi:Stack::package-platform-test",
        f"{owner}:apps/v1:Deployment::{project}-main",
        f"{owner}:core/v1:Service::{project}",
    ]
    assert f'~ app.kubernetes.io/version: "{old}" => "{new}"' in steps
    fields = {line.split(":")[0].strip(" ~") for line in steps.splitlines() if " => " in line}
    told = {"app.kubernetes.io/version", "[0]", "image", "tag", "digest", "release", "revision", "since"}
    assert fields <= told, fields
    assert "2 to update" in shown
    assert program.identities() == before


def test_a_deleted_deployment_is_restored(program: Program, cluster: Cluster) -> None:
    name = BACK_ENDS["SJZY.Package.Output.Api"]
    before = lasting(program.identities(), name)
    cluster.kubectl("delete", "deployment", name, f"--namespace={program.namespace}", "--wait")
    assert f"Deployment/{name}" not in program.identities()
    program.up("--refresh")
    program.wait_until_settled()
    assert tag_of(program, "SJZY.Package.Output.Api") == program.tags["SJZY.Package.Output.Api"]
    assert lasting(program.identities(), name) == before


def test_a_missing_tag_changes_nothing_and_a_removed_file_is_pruned(program: Program) -> None:
    untagged, removed = "packet_label", "packet_shopman_web_ui"
    before, tag = program.identities(), program.tags[untagged]
    with changed(program.stack_file, program.stack_file.read_text()):
        for project in (untagged, removed):
            program.pulumi("config", "rm", "--path", f'tags["{project}"]')
        program.project_file(removed).unlink()
        finished = program.up()
        assert f"{untagged} has no tag in the stack file and keeps {tag}" in finished.stdout, finished.stdout
        releases = program.outputs()["releases"]
        assert releases[untagged]["tag"] == tag
        assert removed not in releases
        program.wait_until_settled()
        left = program.identities()
    assert left == lasting(before, FRONT_ENDS[removed])
    assert len(left) < len(before)


def test_an_environment_variable_and_another_kubeconfig_replace_no_deployment(
    program: Program, cluster: Cluster, tmp_path: Path
) -> None:
    project = "SJZY.Package.Api"
    deployment = f"Deployment/{BACK_ENDS[project]}"
    before = program.identities("deployments")
    elsewhere = shutil.copy(cluster.instance.kubeconfig, tmp_path / "elsewhere")
    program.append(project, "env:\n  NEW_SETTING: new\n")
    program.variables["KUBECONFIG"] = str(elsewhere)
    try:
        program.up()
    finally:
        del program.variables["KUBECONFIG"]
    after = program.identities("deployments")
    assert {name: value["uid"] for name, value in after.items()} == {
        name: value["uid"] for name, value in before.items()
    }
    assert after[deployment]["generation"] > before[deployment]["generation"]
    assert {name for name in before if after[name]["generation"] != before[name]["generation"]} == {deployment}
    containers = [
        container
        for item in program.get("pods")
        if item["metadata"]["annotations"][GITEA_PROJECT] == project and "deletionTimestamp" not in item["metadata"]
        for container in item["spec"]["containers"]
    ]
    assert len(containers) == 2
    assert all({"name": "NEW_SETTING", "value": "new"} in container["env"] for container in containers)


def refusal(program: Program) -> list[str]:
    """Run an `up` that has to be refused, and return what it says after the heading, each line as often as it came."""
    before = program.identities()
    finished = program.up(check=False)
    said = finished.stdout + finished.stderr
    assert finished.returncode != 0, said
    assert "Traceback" not in said
    assert 'File "' not in said
    assert program.identities() == before
    return [line.strip() for line in said.splitlines() if re.match(r"(projects/|Pulumi\.)", line.strip())]


def test_all_bad_input_is_told_at_once_and_nothing_changes(program: Program) -> None:
    kept = program.stack_file.read_text()
    bad = re.sub(r"(?m)^( +packet:) .*$", r"\1 20220803", kept)
    assert bad != kept
    with changed(program.stack_file, bad):
        program.set_tag("SJZY.Package.Apy", "2022-08-03-18-54")
        program.append("packet_label", "kind: frontend\n")
        program.append("packet_bsi_pc_ui", "replicas: [\n")
        program.append("SJZY.Package.Api", "replica: 3\nport: http\n")
        lines = refusal(program)
    stack = "Pulumi.test.yaml:package-platform:tags"
    assert len(lines) == len(set(lines)) == 6, lines
    assert lines[:2] == [
        f"{stack}.SJZY.Package.Apy: there is no project file for it; did you mean 'SJZY.Package.Api'?",
        f'{stack}.packet: 20220803 is a number, not a tag: quote it ("20220803")',
    ]
    assert lines[2].startswith("projects/SJZY.Package.Api.yaml:port: input should be a valid integer")
    assert lines[3] == "projects/SJZY.Package.Api.yaml:replica: unknown key; did you mean 'replicas'?"
    assert re.match(r"projects/packet_bsi_pc_ui\.yaml:line \d+: not readable as YAML: ", lines[4])
    assert re.match(r"projects/packet_label\.yaml:line \d+: not readable as YAML: the key 'kind' is there tw", lines[5])


def test_images_that_the_registry_lacks_are_told_and_nothing_changes(program: Program) -> None:
    missing = "2099-01-01-00-00"
    with changed(program.stack_file, program.stack_file.read_text()):
        program.set_tag("packet", missing)
        program.set_tag("SJZY.Package.Task.Api", missing)
        lines = refusal(program)
    advice = "push it, or name a tag that is there"
    assert lines == [
        f"Pulumi.test.yaml:package-platform:tags.SJZY.Package.Task.Api: harbor.package.test has no image "
        f"back/sjzy.package.task.api:{missing}: {advice}",
        f"Pulumi.test.yaml:package-platform:tags.packet: harbor.package.test has no image "
        f"front/packet:{missing}: {advice}",
    ]


def test_uat_lives_beside_test_and_its_destruction_leaves_nothing(
    program: Program, uat: Program, cluster: Cluster
) -> None:
    before = program.identities()
    uat.set_tag("SJZY.Package.Api", program.other_tag("SJZY.Package.Api"))
    uat.pulumi("config", "rm", "--path", f'tags["{WITHOUT_TAG}"]')
    told = uat.up().stdout
    assert f"{WITHOUT_TAG} has no tag and is not deployed: set package-platform:tags for it" in told
    assert uat.outputs()["releases"].keys() == PROJECTS.keys()
    assert uat.outputs()["releases"][WITHOUT_TAG] is None
    assert uat.namespace != program.namespace
    for each in (program, uat):
        assert {project: tag_of(each, project) for project in each.tags} == each.tags
    assert {SLOT.sub("", item["metadata"]["name"]) for item in uat.get("deployments")} == {
        PROJECTS[project] for project in PROJECTS.keys() - {WITHOUT_TAG}
    }
    assert program.tags["SJZY.Package.Api"] != uat.tags["SJZY.Package.Api"]
    assert len(uat.resources()) > 7 * 6
    assert program.identities() == before

    uat.destroy()
    assert uat.resources() == []
    assert cluster.kubectl("get", "namespace", uat.namespace, "--ignore-not-found") == ""
    everywhere = cluster.get("ingresses,deployments,services,pods,poddisruptionbudgets", "--all-namespaces")["items"]
    ours = [item for item in everywhere if GITEA_PROJECT in item["metadata"].get("annotations", {})]
    assert {item["metadata"]["namespace"] for item in ours} == {program.namespace}
    assert program.identities() == before
