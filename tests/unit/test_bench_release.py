"""The pure parts of the comparison of releases: who gets what, the figures, the tables, where the time goes."""

import itertools
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import kubernetes_validate
import pytest
import yaml

from bench import release, release_sizes
from bench.__main__ import DOCUMENT
from bench.contest import Contest, tag_of_round
from bench.contestants import (
    ARGO_BLUE_GREEN,
    ARGO_CANARY,
    CONTESTANTS,
    HELM,
    KUBECTL_ALONE,
    OURS_BLUE_GREEN,
    OURS_ROLLING,
    Commands,
    Contestant,
    Programs,
    application,
    chart,
    deploy_commands,
    image_loader,
    plain_objects,
    rollback_commands,
    rollout_objects,
    stack_data,
)
from bench.figures import Part, Profile, Sample, SizeFigures, Timing
from bench.generated import GeneratedProject
from bench.processes import ENGINE, PROGRAM, RELEASE, part_name
from bench.release import Findings, hold_contest, parse_only, parse_stack_sizes
from bench.release_figures import (
    ACTIONS,
    BEGIN,
    END,
    KUBECTL,
    Answer,
    Change,
    Circumstances,
    EngineEvent,
    MixedAnswersError,
    Report,
    Row,
    change,
    engine_event,
    release_phases,
    render,
    times,
)
from bench.release_figures import RELEASE as RELEASE_DEPLOY
from bench.release_profile import POLL_SECONDS, EventReader
from bench.release_sizes import OTHER
from bench.report import MarkersMissingError, replace_section
from bench.workspace import CommandError
from devcluster.errors import Refused
from devcluster.images import TAGS
from devcluster.instance import Instance
from devcluster.progress import Progress
from manifests.package_app import package_app, package_app_plan
from model.release import RECORD_ANNOTATION, Release
from model.stack import parse_stack
from settings import PROGRAM as ROOT
from settings import read_stack_file
from tests.conftest import digest_of

ENVIRONMENT: dict[str, Any] = dict(read_stack_file(ROOT, "test")["environment"])
FIRST = Release(tag=TAGS[0], digest=digest_of("back", TAGS[0]))
RIVALS = [each for each in CONTESTANTS if each.group != "release"]
PROGRAMS = Programs(Path("/bin/release"), Path("/program"), Path("/helm"), Path("/argo"), Path("/charts"))
ABOUT = Circumstances("2026-01-02", 2, 23.6, (1.25, 7.5), 100, 3, {"Helm": "4.3.1"})


def pod_template(contestant: Contestant) -> dict[str, Any]:
    """What a contestant's pods are made from, as that contestant is given it."""
    if contestant.group == "release":
        found, environment = application(contestant, ENVIRONMENT, FIRST)
        (slot,) = package_app(found, environment, package_app_plan(found, environment)).slots
        return slot.deployment["spec"]["template"]
    objects = plain_objects(contestant, ENVIRONMENT, FIRST)
    if contestant.group == "argo":
        (rollout,) = (each for each in rollout_objects(contestant, objects) if each["kind"] == "Rollout")
        return rollout["spec"]["template"]
    if contestant.group == "helm":
        files = chart(objects, contestant.name)
        image = yaml.safe_load(files["values.yaml"])["image"]
        return yaml.safe_load(files["templates/deployment.yaml"].replace("{{ .Values.image }}", image))["spec"][
            "template"
        ]
    return objects.deployment["spec"]["template"]


@pytest.mark.parametrize("contestant", CONTESTANTS[1:], ids=lambda each: each.name)
def test_all_contestants_have_the_same_pods(contestant: Contestant) -> None:
    def nameless(each: Contestant) -> dict[str, Any]:
        # Of a blue-green project the first release is in another slot.
        text = json.dumps(pod_template(each)["spec"]).replace('"slot": "blue"', '"slot": "main"')
        return json.loads(text.replace(each.name, "NAME"))

    assert nameless(contestant) == nameless(OURS_ROLLING)
    (container,) = nameless(contestant)["containers"]
    assert container["image"].endswith(f"back/sjzy.package.api:{FIRST.tag}@{FIRST.digest}")
    assert {"startupProbe", "readinessProbe", "livenessProbe", "lifecycle"} <= container.keys()


@pytest.mark.parametrize("contestant", RIVALS, ids=lambda each: each.name)
def test_nobody_takes_the_others_for_projects_of_the_stack(contestant: Contestant) -> None:
    objects = plain_objects(contestant, ENVIRONMENT, FIRST)
    text = json.dumps(objects.all())
    # Nobody but Pulumi reads that.
    assert "pulumi" not in text.replace("pulumi.com/patchForce", "")
    assert RECORD_ANNOTATION not in text
    assert "revisionHistoryLimit" not in text, "it goes back by old ReplicaSets: as many as Kubernetes keeps by itself"
    assert objects.service["spec"]["selector"].items() <= pod_template(contestant)["metadata"]["labels"].items()
    (rule,) = objects.ingress["spec"]["rules"]
    (path,) = rule["http"]["paths"]
    assert (rule["host"], path["path"]) == ("contest.contest.package.test", f"/{contestant.name}")
    for manifest in objects.all():
        kubernetes_validate.validate(manifest, "1.37", strict=True)


def test_our_own_are_a_valid_stack_of_the_same_namespace() -> None:
    files: dict[str, object] = {
        f"projects/{each.gitea_name}.yaml": each.file() for each in CONTESTANTS if each.group == "release"
    }
    stack = parse_stack("Pulumi.contest.yaml", "contest", stack_data(ENVIRONMENT, TAGS[0]), files)
    assert {each.project.strategy for each in stack.deployed} == {"rolling", "blueGreen"}
    namespaces = {plain_objects(each, ENVIRONMENT, FIRST).deployment["metadata"]["namespace"] for each in RIVALS}
    assert namespaces == {stack.environment.namespace}
    assert stack.environment.ingress.ha, "the contest's own ingress"


def test_the_rollouts_get_the_pace_of_the_others_and_their_own_strategy() -> None:
    for contestant in (ARGO_BLUE_GREEN, ARGO_CANARY):
        objects = plain_objects(contestant, ENVIRONMENT, FIRST)
        made = rollout_objects(contestant, objects)
        assert "Deployment" not in {each["kind"] for each in made}
        (rollout,) = (each for each in made if each["kind"] == "Rollout")
        for key in ("replicas", "minReadySeconds", "progressDeadlineSeconds", "selector"):
            assert rollout["spec"][key] == objects.deployment["spec"][key]
        services = [each["metadata"]["name"] for each in made if each["kind"] == "Service"]
        strategy = rollout["spec"]["strategy"]
        if contestant is ARGO_BLUE_GREEN:
            told = strategy["blueGreen"]
            assert services == [told["activeService"], told["previewService"]]
            assert told["autoPromotionEnabled"] is True
        else:
            pace = {key: strategy["canary"][key] for key in ("maxSurge", "maxUnavailable")}
            assert pace == objects.deployment["spec"]["strategy"]["rollingUpdate"]
            assert services == [contestant.name]


def test_the_chart_has_the_image_as_its_one_value() -> None:
    files = chart(plain_objects(HELM, ENVIRONMENT, FIRST), HELM.name)
    assert sorted(files) == [
        "Chart.yaml",
        "templates/deployment.yaml",
        "templates/ingress.yaml",
        "templates/service.yaml",
        "templates/serviceaccount.yaml",
        "values.yaml",
    ]
    assert "".join(files.values()).count("{{") == 1
    assert yaml.safe_load(files["values.yaml"])["image"].endswith(f":{FIRST.tag}@{FIRST.digest}")


def test_everybody_is_changed_by_commands_that_wait() -> None:
    image = "harbor/back:new@sha256:1"
    scope = "--namespace=package-contest"
    assert deploy_commands(OURS_BLUE_GREEN, PROGRAMS, "new", image) == (
        ("/bin/release", "deploy", "Contest.Blue", "new", "--stack=contest", "--cwd=/program"),
    )
    assert rollback_commands(OURS_ROLLING, PROGRAMS) == (
        ("/bin/release", "rollback", "Contest.Rolling", "--stack=contest", "--cwd=/program"),
    )
    set_image, status = deploy_commands(KUBECTL_ALONE, PROGRAMS, "new", image)
    name = KUBECTL_ALONE.deployment
    assert set_image == ("kubectl", "set", "image", scope, f"deployment/{name}", f"contest-kubectl={image}")
    assert status[:5] == ("kubectl", "rollout", "status", scope, f"deployment/{name}")
    assert rollback_commands(KUBECTL_ALONE, PROGRAMS)[0][:3] == ("kubectl", "rollout", "undo")
    (upgrade,) = deploy_commands(HELM, PROGRAMS, "new", image)
    (back,) = rollback_commands(HELM, PROGRAMS)
    assert upgrade[:4] == ("/helm", "upgrade", "contest-helm", "/charts/contest-helm")
    assert f"--set-string=image={image}" in upgrade
    assert back[:3] == ("/helm", "rollback", "contest-helm")
    assert all("--wait" in each for each in (upgrade, back))
    for contestant in (ARGO_BLUE_GREEN, ARGO_CANARY):
        argo = deploy_commands(contestant, PROGRAMS, "new", image)
        assert argo[0][:5] == ("/argo", "set", "image", contestant.deployment, f"{contestant.name}={image}")
        assert argo[1][:2] == rollback_commands(contestant, PROGRAMS)[1][:2] == ("/argo", "status")
        assert rollback_commands(contestant, PROGRAMS)[0][1] == "undo"


def test_every_node_fetches_every_image_in_a_pod_that_the_namespace_admits() -> None:
    loader = image_loader(plain_objects(HELM, ENVIRONMENT, FIRST), {"a": "harbor/x:a", "b": "harbor/x:b"})
    kubernetes_validate.validate(loader, "1.37", strict=True)
    pod = loader["spec"]["template"]["spec"]
    assert [each["image"] for each in pod["containers"]] == ["harbor/x:a", "harbor/x:b"]
    assert len({each["env"][0]["value"] for each in pod["containers"]}) == 2
    assert pod["securityContext"]["runAsNonRoot"]
    assert all(each["securityContext"]["capabilities"] == {"drop": ["ALL"]} for each in pod["containers"])


def test_no_round_releases_what_the_round_before_did() -> None:
    tags = [tag_of_round(number) for number in range(12)]
    assert TAGS[0] not in tags
    assert all(first != second for first, second in itertools.pairwise(tags))


def test_a_change_ends_with_the_last_answer_of_the_version_before() -> None:
    answers = [
        Answer(-1.0, 0.1, 200, "old"),
        Answer(2.0, 0.5, 200, "old"),
        Answer(2.1, 0.1, 502, ""),
        Answer(2.2, 0.1, 200, "new"),
        Answer(9.0, 0.1, 200, "new"),
    ]
    assert change(answers, 4.0, "old", "new") == Change(4.0, 2.5, failed=1, sent=5)
    assert change(answers[4:], 4.0, "old", "new").last_old == 0.0
    with pytest.raises(MixedAnswersError, match="old answered beside new"):
        change([*answers, Answer(9.1, 0.1, 200, "old")], 4.0, "old", "new")
    with pytest.raises(MixedAnswersError, match="nothing answered"):
        change([], 4.0, "old", "new")


def test_ratios_are_of_medians_and_there_is_none_without_a_measurement() -> None:
    ours = Row(OURS_ROLLING, {"deploy": (Change(9, 8, 0, 1), Change(3, 2, 0, 1), Change(6, 4, 0, 1))})
    assert (ours.seconds("deploy"), ours.last_old("deploy")) == (6, 4)
    assert ours.seconds("rollback") is None
    assert times(6, 4) == 1.5
    assert times(6, None) is None
    assert times(None, 6) is None
    assert times(6, 0.0) is None


class DryContest(Contest):
    """A contest without a cluster, in which Helm can't enter, and some changes of two others go wrong."""

    def build(self, taking_part: Sequence[Contestant]) -> None:
        assert taking_part
        self.asked: list[str] = []

    def set_up(self) -> None: ...
    def clean_up(self) -> None:
        self.cleaned = True

    def profiles(self, number: int) -> list[Profile]:
        raise CommandError(f"no profile in round {number}")

    def _settle(self) -> None: ...
    def _wait_for(self, contestant: Contestant, tag: str) -> None: ...
    def _run(self, *command: str, limit: float = 1.0) -> str:
        if command[0] == "/helm":
            raise CommandError(f"no cluster within {limit} s")
        return ""

    def _change(self, contestant: Contestant, commands: Commands, old: str, new: str, name: str) -> Change:
        self.asked = [*self.asked, name]
        if contestant is OURS_BLUE_GREEN:
            raise CommandError("not ready")
        if contestant is KUBECTL_ALONE and name.endswith("1-rollback"):
            raise MixedAnswersError("old answered")
        assert {old, new} & {TAGS[0]}
        assert commands
        return Change(2.0, 1.0, 0, 10)


def _no_controller(_: Contest) -> None:
    raise CommandError("no controller")


def test_who_fails_does_not_stop_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(release, "argo_controller", _no_controller)
    cluster: Any = SimpleNamespace(instance=Instance(6, ROOT))
    images = {tag: f"harbor/x:{tag}@{FIRST.digest}" for tag in TAGS}
    programs = replace(PROGRAMS, charts=tmp_path)
    contest = DryContest(cluster, tmp_path, Progress(quiet=True), 10, {}, programs, images, ENVIRONMENT)
    findings = Findings(Report(ABOUT, ()), write=False)
    hold_contest(contest, parse_only("release,kubectl,helm,argo"), 3, findings)
    rows = {row.contestant.gitea_name: row for row in findings.report.rows}
    assert [len(rows[OURS_ROLLING.gitea_name].changes[action]) for action in ACTIONS] == [3, 3]
    assert [len(rows[KUBECTL_ALONE.gitea_name].changes[action]) for action in ACTIONS] == [2, 1]
    assert rows[KUBECTL_ALONE.gitea_name].failure == "rollback of round 2: old answered"
    assert rows[OURS_BLUE_GREEN.gitea_name].changes == {}
    assert [name for name in contest.asked if OURS_BLUE_GREEN.name in name] == ["contest-blue-0-deploy"]
    assert rows[HELM.gitea_name].changes == {}
    assert rows[HELM.gitea_name].failure.startswith("could not be set up")
    assert "no controller" in rows[ARGO_CANARY.gitea_name].failure
    assert findings.report.notes == ("where the time goes with real pods: no profile in round 3",)
    assert contest.cleaned
    assert (tmp_path / HELM.name / "Chart.yaml").exists()


def _cells(text: str) -> dict[str, list[str]]:
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("| ")
    ]
    return {row[0]: row[1:] for row in rows}


def test_the_tables_have_a_row_for_everybody_and_say_who_failed() -> None:
    ours = Row(OURS_ROLLING, {"deploy": (Change(6.0, 4.0, 0, 100), Change(8.0, 5.0, 1, 100))})
    other = Row(KUBECTL_ALONE, {"deploy": (Change(3.5, 3.0, 0, 50),)})
    failed = Row(HELM, {}, "could not be set up: no\nchart")
    text = render(Report(ABOUT, (failed, other, ours), notes=("the stack sizes: no room",)))
    deploy, rollback = (_cells(part) for part in text.split("| rollback"))
    assert deploy["release, rolling: `release deploy`"] == [
        "7.0 (6.0\u20138.0)",
        "4.5 (4.0\u20135.0)",
        "1 / 200",
        "-",
        "-",
    ]
    kubectl = "kubectl: `kubectl set image` + `rollout status`"
    assert deploy[kubectl] == ["3.5", "3.0", "0 / 50", "2.0 / 1.5", "-"]
    assert deploy["Helm 4: `helm upgrade --wait`"] == ["failed", "failed", "failed", "-", "-"]
    assert rollback["release, rolling: `release rollback`"] == ["-"] * 5
    assert list(deploy).index("release, rolling: `release deploy`") < list(deploy).index(kubectl)
    assert "- Helm 4: could not be set up: no chart\n- the stack sizes: no room" in text
    assert "load average 1.2 at the start and 7.5 at the end" in text


def _timing(*seconds: float) -> Timing:
    return Timing(tuple(Sample(each, each / 4) for each in seconds))


def test_the_sizes_are_compared_with_kubectl_and_with_the_smallest() -> None:
    sizes = tuple(
        SizeFigures(count, count * 6, count * 1024 * 1024, {RELEASE_DEPLOY: _timing(seconds), KUBECTL: _timing(0.5)})
        for count, seconds in ((8, 5.0), (800, 6.0))
    )
    cells = _cells(render(Report(ABOUT, (), sizes)))
    assert cells["`release deploy`: times kubectl's"] == ["10.0", "12.0"]
    assert cells["`release deploy`: seconds beyond kubectl's"] == ["4.5", "5.5"]
    assert cells["`release deploy`: times that of the smallest stack"] == ["1.0", "1.2"]
    assert cells["state, MiB"] == ["8.0", "800.0"]
    assert cells["`release deploy` at 800 projects: times that at 8"] == ["1.3", "1.2"]
    assert cells["`release deploy` without pods, 8 projects: seconds beyond kubectl's"] == ["2.0", "4.5"]


def test_the_goals_are_shown_beside_what_was_measured() -> None:
    rows = (
        Row(OURS_ROLLING, {"deploy": (Change(9.5, 8.0, 0, 1),)}),
        Row(KUBECTL_ALONE, {"deploy": (Change(3.0, 3.0, 0, 1),)}),
        Row(OURS_BLUE_GREEN, {"rollback": (Change(6.0, 2.0, 0, 1),)}),
        Row(ARGO_BLUE_GREEN, {"rollback": (Change(4.0, 2.5, 0, 1),)}),
    )
    cells = _cells(render(Report(ABOUT, rows)))
    assert cells["rolling `release deploy`: seconds beyond kubectl's"] == ["2.0", "6.5"]
    name = "blue-green `release rollback`, until the"
    assert cells[f"{name} command returns: times Argo Rollouts'"] == ["1.0", "1.5"]
    assert cells[f"{name} last old answer: times Argo Rollouts'"] == ["1.0", "0.8"]
    assert "| goal" not in render(Report(ABOUT, rows[:1]))


def test_the_document_has_a_place_of_its_own_for_them() -> None:
    document = DOCUMENT.read_text(encoding="utf-8")
    written = replace_section(document, "the table", (BEGIN, END))
    assert f"{BEGIN}\n\nthe table\n\n{END}" in written
    assert written.split(BEGIN)[0] == document.split(BEGIN)[0], "the other sections are as before"
    with pytest.raises(MarkersMissingError, match="release: begin"):
        replace_section(document.replace(BEGIN, ""), "the table", (BEGIN, END))


DEPLOYMENT, SERVICE = "kubernetes:apps/v1:Deployment", "kubernetes:core/v1:Service"
PARTS = (
    Part(RELEASE, 0.0, 12.0, 1.0, 1),
    Part(ENGINE, 1.0, 10.5, 1.0, 1),
    Part(PROGRAM, 2.5, 8.0, 1.0, 1),
)


def test_the_time_of_a_release_is_cut_at_events_and_processes() -> None:
    events = [
        EngineEvent(2.0, "preludeEvent"),
        EngineEvent(4.0, "resourcePreEvent", "same", "pulumi:pulumi:Stack"),
        EngineEvent(5.0, "resourcePreEvent", "same", SERVICE),
        EngineEvent(6.0, "resourcePreEvent", "update", DEPLOYMENT),
        EngineEvent(9.0, "resOutputsEvent", "update", DEPLOYMENT),
        EngineEvent(9.5, "resourcePreEvent", "update", SERVICE),
        EngineEvent(10.0, "resOutputsEvent", "update", SERVICE),
    ]
    phases = release_phases(events, PARTS, 12.0)
    assert [round(phase.seconds, 3) for phase in phases] == [1.0, 1.0, 2.0, 2.0, 3.0, 1.0, 1.5, 0.5]
    assert phases[4].name.startswith("pods")


def test_a_rollback_that_only_moves_traffic_has_no_time_for_pods() -> None:
    events = [
        EngineEvent(2.0, "preludeEvent"),
        EngineEvent(4.0, "resourcePreEvent", "same", DEPLOYMENT),
        EngineEvent(4.2, "resOutputsEvent", "same", DEPLOYMENT),
        EngineEvent(5.0, "resourcePreEvent", "update", SERVICE),
        EngineEvent(6.0, "resOutputsEvent", "update", SERVICE),
    ]
    phases = release_phases(events, PARTS, 12.0)
    assert phases[4].seconds == 0.0
    assert sum(phase.seconds for phase in phases) == pytest.approx(12.0)
    assert min(phase.seconds for phase in release_phases([], (), 3.0)) == 0.0
    assert sum(phase.seconds for phase in release_phases([], (), 3.0)) == pytest.approx(3.0)


def test_events_of_the_engine_are_read_as_they_come(tmp_path: Path) -> None:
    line = json.dumps({"sequence": 3, "resourcePreEvent": {"metadata": {"op": "update", "type": SERVICE}}})
    assert engine_event(1.5, line) == EngineEvent(1.5, "resourcePreEvent", "update", SERVICE)
    assert engine_event(1.5, line[:20]) is None
    assert engine_event(1.5, "[]") is None
    log = tmp_path / "package-platform-release-x" / "events"
    with EventReader(tmp_path) as reader:
        log.parent.mkdir()
        log.write_text(line[:30])
        time.sleep(5 * POLL_SECONDS)  # so that the line usually comes in two parts
        with log.open("a") as file:
            file.write(line[30:] + '\n{"preludeEvent": {}}\n')
    assert [event.kind for event in reader.events] == ["resourcePreEvent", "preludeEvent"]


def test_processes_of_release_have_names() -> None:
    assert part_name(["/p/.venv/bin/python", "-m", "release", "deploy"]) == RELEASE
    assert part_name(["/p/.venv/bin/python", "-I", "-S", "/p/release/guard.py", "3"]) == "guard of `release`"
    assert part_name(["pulumi", "up", "--yes", "--skip-preview"]) == ENGINE


def test_the_figures_show_where_the_time_goes() -> None:
    profile = Profile("`release deploy`", 8, 12.0, release_phases([], PARTS, 12.0), PARTS)
    assert "### Where the time goes: `release deploy`, 8 projects" in render(Report(ABOUT, (), (), (profile,)))


def test_what_is_not_measured_can_be_chosen() -> None:
    assert {each.group for each in parse_only("kubectl, release")} == {"kubectl", "release"}
    assert parse_only("release,kubectl")[0] is OURS_ROLLING, "in the usual order"
    assert parse_stack_sizes("none") == []
    assert parse_stack_sizes("800,8") == [8, 800]
    with pytest.raises(Refused, match="names others than release, kubectl, helm, argo"):
        parse_only("kubectl,flux")
    with pytest.raises(Refused, match="at least 4"):
        parse_stack_sizes("3,80")
    assert OTHER.kind == "backend"
    assert OTHER.number < 4


def answering(answer: object) -> Callable[..., object]:
    """Return what answers so, whatever it is asked."""

    def asked(*_: object, **__: object) -> object:
        return answer

    return asked


def test_neither_command_is_timed_for_the_first_time_at_a_size(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, float]] = []

    def took(command: str) -> Callable[..., Sample]:
        def run(*_: object) -> Sample:
            told.append((command, float(len(told))))
            return Sample(told[-1][1], 0.0)

        return run

    stack = SimpleNamespace(
        rounds=2,
        progress=Progress(quiet=True),
        chosen=GeneratedProject(0),
        grow=answering(None),
        next_tag=answering("a-tag"),
        check_live=answering(None),
        set_image=took(KUBECTL),
        workspace=SimpleNamespace(folder=ROOT, variables={}, state=answering((40, 1000)), timed=took(RELEASE_DEPLOY)),
    )
    monkeypatch.setattr(release_sizes, "profile", answering(Profile("a run", 8, 1.0, (), ())))
    (sized,) = release_sizes.measure_sizes(cast("Any", stack), [8])
    timed = {command: [sample.seconds for sample in each.samples] for command, each in sized.figures.timings.items()}
    assert {command: len(each) for command, each in timed.items()} == {RELEASE_DEPLOY: 2, KUBECTL: 2}
    for command, seconds in timed.items():
        first = next(at for name, at in told if name == command)
        assert first not in seconds, command
