"""The pure parts of the measurement: made-up projects, figures, tables, and what its command line refuses."""

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench import healing, ingress, release
from bench.__main__ import HELP, main, parse_sizes, running_cluster
from bench.checkpoint import SMALLEST, TEMPLATES, copied_resources, manifests, revision, with_copies
from bench.figures import (
    Part,
    Phase,
    Profile,
    Sample,
    SizeFigures,
    Timing,
    cpu_slope_milliseconds,
    phases_of,
    ratio,
    slope_milliseconds,
)
from bench.generated import STACK, GeneratedProject, projects, stack_config
from bench.processes import PROGRAM, part_name, run, watch
from bench.report import (
    BEGIN,
    END,
    KUBECTL,
    PREVIEW,
    TARGETED,
    UP,
    Circumstances,
    MarkersMissingError,
    Results,
    markdown_table,
    render,
    replace_section,
)
from bench.workspace import event_kinds
from devcluster import cluster, deploy, machine
from devcluster.errors import Refused
from devcluster.instance import Instance, Machine
from devcluster.progress import Progress
from manifests import Manifest
from manifests.frontend_app import frontend_app, frontend_app_plan
from manifests.package_app import package_app, package_app_plan
from model.names import collisions
from model.stack import NAMESPACE, parse_stack


def timing(*seconds: float) -> Timing:
    return Timing(tuple(Sample(each, each / 4) for each in seconds))


def figures(count: int, resources: int, seconds: float) -> SizeFigures:
    timings = {UP: timing(seconds), KUBECTL: timing(1.0, 2.0, 9.0), PREVIEW: timing(seconds / 2)}
    return SizeFigures(count, resources, 1_500_000, timings)


ABOUT = Circumstances("2026-01-02", 2, 23.6, 7.25, {"Pulumi CLI": "3.259.0"}, 3)


def test_made_up_projects_and_their_stack_are_valid_and_have_the_mix_of_the_real_ones() -> None:
    made = projects(200)
    files: dict[str, object] = {f"projects/{each.gitea_name}.yaml": yaml.safe_load(each.file()) for each in made}
    config = stack_config({each.gitea_name: each.first_tag for each in made}, "harbor.package.test", "10.0.0.1:80")
    data = {key.removeprefix(f"{NAMESPACE}:"): value for key, value in yaml.safe_load(yaml.safe_dump(config)).items()}
    stack = parse_stack(f"Pulumi.{STACK}.yaml", STACK, data, files)
    assert len(stack.deployed) == 200
    assert collisions([each.gitea_name for each in made]) == []
    assert {application.project.replicas for application in stack.applications} == {0}
    assert sum(application.project.kind == "backend" for application in stack.applications) == 75
    images = {application.image.reference for application in stack.applications if application.image}
    assert len(images) == 200, "the registry is asked once for each project"


def test_names_of_a_made_up_project_are_those_that_the_program_gives_it() -> None:
    project = GeneratedProject(0)
    files = {f"projects/{project.gitea_name}.yaml": yaml.safe_load(project.file(replicas=2))}
    config = stack_config({project.gitea_name: "t"}, "harbor.package.test", "10.0.0.1:80")
    data = {key.removeprefix(f"{NAMESPACE}:"): value for key, value in config.items()}
    (application,) = parse_stack("Pulumi.bench.yaml", STACK, data, files).applications
    assert application.project.replicas == 2
    assert (project.container, project.deployment) == (application.name, application.name)
    assert application.image is not None
    assert application.image.repository == f"harbor.package.test/{project.repository}"
    assert project.urn == ("urn:pulumi:bench::package-platform::package-platform:index:PackageApp::Bench.P000.Api")
    assert GeneratedProject(3).urn.endswith(":FrontendApp::bench_p003")


def test_a_copy_of_the_program_has_every_file_of_it(root: Path) -> None:
    assert [name for name in deploy.PROGRAM_PARTS if not (root / name).exists()] == []
    assert {path.name for path in root.glob("*.py")} <= set(deploy.PROGRAM_PARTS)


def test_median_ratio_and_slope() -> None:
    assert timing(9.0, 1.0, 2.0).median == 2.0
    assert timing(9.0, 1.0, 2.0).spread == (1.0, 9.0)
    assert timing(9.0, 1.0, 2.0).cpu == 0.5
    assert Sample(1.0, 0.5) + Sample(2.0, 0.25) == Sample(3.0, 0.75)
    assert ratio(timing(6.0), timing(1.0, 2.0, 9.0)) == 3.0
    sizes = [figures(8, 50, 3.0), figures(80, 450, 7.0), figures(200, 1250, 15.0)]
    assert slope_milliseconds(sizes, UP) == pytest.approx(10.0)
    assert cpu_slope_milliseconds(sizes, UP) == pytest.approx(2.5)
    assert slope_milliseconds(sizes[:1], UP) is None
    assert slope_milliseconds(sizes, "never timed") is None


def test_phases_add_up_to_the_whole_and_follow_the_events() -> None:
    events = [
        (0.5, "diagnosticEvent"),
        (1.0, "preludeEvent"),
        (6.0, "resourcePreEvent"),
        (7.5, "resourcePreEvent"),
        (9.0, "resOutputsEvent"),
        (9.25, "summaryEvent"),
    ]
    found = phases_of(events, 3.0, 10.0)
    assert [phase.seconds for phase in found] == [1.0, 2.0, 3.0, 1.5, 1.5, 1.0]
    assert sum(phase.seconds for phase in phases_of([], 4.0, 5.0)) == 5.0, "a run without events is no failure"


@pytest.mark.parametrize(
    ("line", "kinds"),
    [
        ('{"sequence": 1, "timestamp": 2, "preludeEvent": {"config": {}}}', ["preludeEvent"]),
        ('{"sequence": 1}', []),
        ("warning: something", []),
        ("[1]", []),
    ],
)
def test_event_kinds(line: str, kinds: list[str]) -> None:
    assert event_kinds(line) == kinds


@pytest.mark.parametrize(
    ("command_line", "name"),
    [
        (("pulumi", "up"), "engine (pulumi)"),
        (("/opt/bin/pulumi-language-python", "127.0.0.1:1"), "language host"),
        (("/venv/bin/python3", "-m", "pip", "list"), "pip list (asked by the language host for plugins)"),
        (("/venv/bin/python3", "-u", "/opt/bin/pulumi-language-python-exec", "--monitor"), PROGRAM),
        (("git", "status"), "other: git"),
    ],
)
def test_process_is_named_for_its_part(command_line: tuple[str, ...], name: str) -> None:
    assert part_name(command_line) == name


def test_watched_command_and_its_child_are_seen_with_their_memory(tmp_path: Path) -> None:
    child = "import time; held = bytearray(64 << 20); time.sleep(1.5)"
    script = f"import subprocess, sys; print('hello', flush=True); subprocess.run(['python-child', '-c', {child!r}]"
    script += f", executable={sys.executable!r}); sys.exit(3)"
    watched = watch([sys.executable, "-c", script], tmp_path, os.environ, limit=30)
    assert watched.code == 3
    assert [line for _, line in watched.lines] == ["hello\n"]
    parts = {part.name: part for part in watched.parts}
    assert parts["other: python-child"].peak_bytes > 64 << 20
    assert parts["other: python-child"].life_seconds > 0.5
    assert all(part.start_seconds + part.life_seconds <= watched.seconds for part in watched.parts)


def test_watched_command_is_ended_at_its_limit(tmp_path: Path) -> None:
    started = time.monotonic()
    watched = watch(["sleep", "30"], tmp_path, os.environ, limit=0.3)
    assert watched.code != 0
    assert time.monotonic() - started < 15


def test_command_that_is_ended_takes_its_children_along_also_from_their_own_process_group(tmp_path: Path) -> None:
    script = "sh -c 'echo $$; exec sleep 31' & exec sleep 32"
    command = ["bash", "-c", f"set -m; {script}"]
    started = time.monotonic()
    code, out, _ = run(command, tmp_path, os.environ, limit=5.0)
    assert code == -signal.SIGKILL
    assert time.monotonic() - started < 28, "its output ended, so no child holds it any more"
    limit = time.monotonic() + 20
    while _runs(int(out)) and time.monotonic() < limit:
        time.sleep(0.02)
    assert not _runs(int(out)), "a child that was killed still runs"


def _runs(pid: int) -> bool:
    """Whether a process is there and not just uncollected: a kill takes effect some time after it was sent."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in {"Z", "X"}
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_report_puts_the_commands_side_by_side() -> None:
    profile = Profile(
        "`pulumi up`", 200, 12.0, (Phase("engine starts", 0.7),), (Part("engine", 0.0, 12.0, 3.0, 100 << 20),)
    )
    sizes = (figures(8, 50, 3.0), figures(200, 1250, 15.0))
    pods = {UP: timing(8.0), KUBECTL: timing(4.0), TARGETED: timing(6.0)}
    text = render(Results(ABOUT, {"`pulumi version`": timing(0.2)}, sizes, pods, (profile,)), load_end=1.0)
    assert "2026-01-02; 2 cores, 24 GiB of memory; load average 7.2 at the start and 1.0 at the end" in text
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    assert ["", "8 projects, 50 resources", "200 projects, 1250 resources", "2 real pods, smallest stack"] in rows
    assert [UP, "3.0", "15.0", "8.0"] in rows
    assert [KUBECTL, "2.0 (1.0–9.0)", "2.0 (1.0–9.0)", "4.0"] in rows  # noqa: RUF001 - a range
    assert [f"{UP}: times kubectl's", "1.5", "7.5", "2.0"] in rows
    assert [f"{TARGETED}: times kubectl's", "-", "-", "1.5"] in rows
    assert [f"{UP}: CPU", "0.8", "3.8", "2.0"] in rows
    assert [UP, "10.0", "2.5"] in rows, "ms for each further resource"
    assert ["`pulumi version`", "0.2", "0.1"] in rows
    assert ["engine", "0.0", "12.0", "3.0", "100"] in rows


def test_markdown_table_lines_up() -> None:
    lines = markdown_table(["a", "seconds"], [["long name", "1"], ["b", "22"]]).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[1].endswith(":|")


def test_section_is_replaced_between_its_markers_and_nowhere_else() -> None:
    document = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    once = replace_section(document, "new\n")
    assert once == f"before\n{BEGIN}\n\nnew\n\n{END}\nafter\n"
    assert replace_section(once, "new") == once


@pytest.mark.parametrize("document", ["no markers", f"{END}\n{BEGIN}", BEGIN])
def test_missing_markers_are_an_error(document: str) -> None:
    with pytest.raises(MarkersMissingError, match="bench: begin"):
        replace_section(document, "new")


def test_committed_document_has_the_markers(root: Path) -> None:
    document = (root / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    assert "new section" in replace_section(document, "new section")


def test_sizes() -> None:
    assert parse_sizes("80, 8,200,8") == [8, 80, 200]


@pytest.mark.parametrize("text", ["", "8,", "a", "0", "-8", "1000", "8;80", "٣"])
def test_bad_sizes_are_refused(text: str) -> None:
    with pytest.raises(Refused, match="write 8,80,200"):
        parse_sizes(text)


def test_command_line_refuses_in_one_line_before_it_starts_anything(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["bench", "--sizes", "none"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("refused: --sizes 'none'")
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(
    ("before", "keep", "ended"),
    [
        ("nothing", False, ["down, wiped"]),
        ("state", False, ["down"]),
        ("up", False, []),
        ("half up", False, []),
        ("nothing", True, []),
        ("state", True, []),
    ],
)
def test_a_cluster_is_left_as_it_was_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str, *, keep: bool, ended: list[str]
) -> None:
    instance = Instance(6, tmp_path)
    if before != "nothing":
        instance.state.mkdir(parents=True)
        instance.kubeconfig.touch()
    on = {"up": {"hub", "n1", "n2", "n3"}, "half up": {"n1"}}.get(before, set[str]())
    said: list[str] = []

    def up(up_of: Instance, _: Progress) -> None:
        up_of.state.mkdir(parents=True, exist_ok=True)
        on.update(each.name for each in up_of.machines)

    def down(_: Instance, __: Progress, *, wipe: bool) -> None:
        said.append("down, wiped" if wipe else "down")

    def reserve(*_: object) -> Instance:
        return instance

    def is_on(each: Machine) -> bool:
        return each.name in on

    monkeypatch.setattr(cluster, "reserve", reserve)
    monkeypatch.setattr(cluster, "up", up)
    monkeypatch.setattr(cluster, "down", down)
    monkeypatch.setattr(machine, "is_on", is_on)
    with running_cluster(None, Progress(quiet=True), keep=keep) as used:
        assert used == instance
    assert said == ended


@pytest.mark.parametrize("text", [HELP, healing.HELP, ingress.HELP, release.HELP])
def test_help_says_what_becomes_of_a_cluster_that_is_there(text: str) -> None:
    words = " ".join(text.split())
    assert "One that is there already is used, and left on or off as it was" in words
    assert ("of every stack, is removed" in words) == (text != HELP)
    assert ("Only the namespace package-bench is made anew" in words) == (text == HELP)


DIGEST = "sha256:" + "0" * 64
CONFIG = stack_config({}, "harbor.example.com", "10.0.0.1:80")


def exported_state() -> dict[str, Any]:
    def resource(project: GeneratedProject, kind: str) -> dict[str, Any]:
        inputs = {"kind": kind, "metadata": {"name": project.container, "labels": {"x": project.first_tag}}}
        return {
            "urn": f"urn:...::{project.container}",
            "parent": project.urn,
            "type": f"kubernetes:core/v1:{kind}",
            "inputs": {**inputs, "apiVersion": "v1", "__defaults": []},
            "outputs": {"path": project.file(), "image": DIGEST, "release": revision(project, DIGEST, CONFIG)},
        }

    made = projects(4)
    components = [{"urn": project.urn, "type": "package-platform:index:X"} for project in made]
    return {"version": 3, "deployment": {"resources": [*components, *(resource(each, "Service") for each in made)]}}


@pytest.mark.parametrize("number", [8, 11, 199])
def test_copied_state_is_that_of_the_new_project_alone(number: int) -> None:
    state, project = exported_state(), GeneratedProject(number)
    component, service = copied_resources(state, project, CONFIG)
    assert component["urn"] == service["parent"] == project.urn
    assert service["inputs"]["metadata"] == {"name": project.container, "labels": {"x": project.first_tag}}
    assert service["outputs"]["path"] == project.file()
    whole = with_copies(state, [component, service])
    assert whole["deployment"]["resources"] == [*state["deployment"]["resources"], component, service]
    assert len(state["deployment"]["resources"]) == 8, "the given state is left as it was"


def objects(project: GeneratedProject) -> list[Manifest]:
    """Return the objects of a project's first release."""
    application, environment = project.declared(DIGEST, CONFIG)
    if project.kind == "backend":
        return package_app(application, environment, package_app_plan(application, environment)).manifests()
    return frontend_app(application, environment, frontend_app_plan(application, environment)).manifests()


@pytest.mark.parametrize("number", [8, 11, 199])
def test_what_is_copied_is_what_the_program_declares_for_the_new_project(number: int) -> None:
    project = GeneratedProject(number)
    template = TEMPLATES[project.kind]
    resources = [
        {"urn": str(number), "parent": template.urn, "type": "kubernetes:", "inputs": manifest}
        for number, manifest in enumerate(objects(template))
    ]
    copied = copied_resources({"deployment": {"resources": resources}}, project, CONFIG)
    assert [each["inputs"] for each in copied] == objects(project)


def test_a_template_that_runs_something_else_is_not_copied() -> None:
    state = exported_state()
    text = json.dumps(state).replace(revision(GeneratedProject(1), DIGEST, CONFIG), "another")
    with pytest.raises(ValueError, match=r"Bench\.P001\.Api does not run bench-p001 as it is declared"):
        copied_resources(json.loads(text), GeneratedProject(8), CONFIG)


def test_copied_manifests_are_the_plain_kubernetes_objects() -> None:
    project = GeneratedProject(8)
    (service,) = manifests(copied_resources(exported_state(), project, CONFIG))["items"]
    assert service == {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": project.container, "labels": {"x": project.first_tag}},
    }


def test_templates_are_of_their_kind_and_not_the_project_that_changes() -> None:
    assert {kind: template.kind for kind, template in TEMPLATES.items()} == {kind: kind for kind in TEMPLATES}
    assert GeneratedProject(0) not in TEMPLATES.values()
    assert projects(SMALLEST)[-1] in TEMPLATES.values()
