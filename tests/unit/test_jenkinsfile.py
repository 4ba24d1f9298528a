"""The Jenkinsfiles: parsed and run by the Groovy that Jenkins has, with the directives as far as we use them."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import typer

from devcluster.debian import ensure_installed
from devcluster.progress import Progress
from devcluster.tooltable import SystemProgram
from pipeline import jenkins_xml
from pipeline.__main__ import app
from pipeline.settings import Program

ROOT = Path(__file__).parents[2]
HERE = ROOT / "tests" / "jenkinsfile"
SHARED, CONFIG = ROOT / "pipeline" / "Jenkinsfile", ROOT / "pipeline" / "config.Jenkinsfile"
API = "SJZY.Package.Api"
OPENED = ("java.lang", "java.util", "java.lang.reflect", "java.io")
"""Packages of Java 17 that this Groovy looks into."""


@dataclass(frozen=True)
class Scenario:
    """A build: how it was started, who approves, what fails."""

    tag: str = ""
    stack: str = "test"
    approved: tuple[str, ...] = ()
    fails: str = ""
    job: str = API
    commit: str = "4f2a9c1"

    def json(self) -> dict[str, Any]:
        params = {"TAG": self.tag, "STACK": self.stack, "COMMIT": self.commit}
        return {"job": self.job, "params": params, "approved": self.approved, "fails": self.fails}


@dataclass(frozen=True)
class Done:
    """What a build did."""

    result: str
    stages: list[str]
    asked: list[str]
    commands: list[str] = field(default_factory=list)
    variables: dict[str, list[str]] = field(default_factory=dict)


@pytest.fixture(scope="session")
def groovy(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command that runs Groovy 2.4.21, from Maven Central."""
    if not (shutil.which("java") and shutil.which("mvn")):
        if os.environ.get("CI") != "true":
            pytest.skip("needs java and mvn (Debian: maven)")
        ensure_installed([SystemProgram("mvn", "maven")], Progress())
    folder = tmp_path_factory.mktemp("groovy")
    line = ["mvn", "-q", "-B", "dependency:copy-dependencies", f"-DoutputDirectory={folder}"]
    fetched = subprocess.run(line, cwd=HERE, capture_output=True, text=True, timeout=600, check=False)
    assert fetched.returncode == 0, fetched.stdout[-2000:]
    opened = [word for each in OPENED for word in ("--add-opens", f"java.base/{each}=ALL-UNNAMED")]
    return ["java", *opened, "-cp", os.pathsep.join(map(str, folder.glob("*.jar"))), "groovy.ui.GroovyMain"]


def ran(groovy: list[str], folder: Path, *scenarios: tuple[Path, Scenario]) -> list[dict[str, Any]]:
    told = folder / "scenarios.json"
    told.write_text(json.dumps([{**each.json(), "file": str(file)} for file, each in scenarios]))
    line = [*groovy, str(HERE / "run.groovy"), str(told)]
    finished = subprocess.run(line, capture_output=True, text=True, timeout=300, check=False)
    assert finished.returncode == 0, finished.stderr[-3000:]
    return json.loads(finished.stdout)


def builds(groovy: list[str], folder: Path, *scenarios: tuple[Path, Scenario]) -> list[Done]:
    found: list[Done] = []
    for build in ran(groovy, folder, *scenarios):
        assert "error" not in build, build["error"]
        events = build["events"]
        shells = [each for each in events if each["kind"] == "sh"]
        asked = [each["stage"] for each in events if each["kind"] == "input"]
        variables = {
            stage: [e["text"] for e in events if (e["kind"], e["stage"]) == ("environment", stage)] for stage in STAGES
        }
        commands = [each["text"] for each in shells]
        found.append(Done(build["result"], [each["stage"] for each in shells], asked, commands, variables))
    return found


MADE = ["Checkout", "Build", "Push"]
GATES = ("Deploy uat", "Deploy prod")
STAGES = (*MADE, "Deploy test", *GATES)


def test_stages_in_their_order(groovy: list[str], tmp_path: Path) -> None:
    table: list[tuple[Scenario, str, list[str], list[str]]] = [
        (Scenario(), "SUCCESS", [*MADE, "Deploy test"], []),
        (Scenario(stack="uat", approved=GATES), "SUCCESS", [*MADE, "Deploy test", "Deploy uat"], ["Deploy uat"]),
        (Scenario(stack="prod", approved=GATES), "SUCCESS", [*MADE, "Deploy test", *GATES], [*GATES]),
        (Scenario(stack="uat"), "ABORTED", [*MADE, "Deploy test"], ["Deploy uat"]),
        (
            Scenario(stack="prod", approved=("Deploy uat",)),
            "ABORTED",
            [*MADE, "Deploy test", "Deploy uat"],
            [*GATES],
        ),
        (Scenario(tag="t1"), "SUCCESS", ["Deploy test"], []),
        (Scenario(tag="t1", stack="uat", approved=GATES), "SUCCESS", ["Deploy uat"], ["Deploy uat"]),
        (Scenario(tag="t1", stack="prod", approved=GATES), "SUCCESS", ["Deploy prod"], ["Deploy prod"]),
        (Scenario(tag="t1", stack="prod"), "ABORTED", [], ["Deploy prod"]),
        (Scenario(fails=" build "), "FAILURE", ["Checkout", "Build"], []),
        (Scenario(stack="prod", fails="--stack test", approved=GATES), "FAILURE", [*MADE, "Deploy test"], []),
    ]
    for (scenario, result, stages, asked), done in zip(
        table, builds(groovy, tmp_path, *((SHARED, row[0]) for row in table)), strict=True
    ):
        # Whatever comes of it, the group is told, once and last.
        assert done.stages == [*stages, "post always"], scenario
        assert (done.result, done.asked) == (result, asked), scenario
        assert done.commands[-1] == f'python -m pipeline notify "${{PROJECT}}" --result {result}'


def words(command: str, variables: dict[str, str], folder: Path) -> list[str]:
    """Return what the shell gives to `python`."""
    program = folder / "python"
    program.write_text('#!/bin/sh\nfor word; do printf "%s\\0" "$word"; done\n')
    program.chmod(0o755)
    path = {"PATH": f"{folder}:/usr/bin:/bin"}
    done = subprocess.run(["/bin/sh", "-ec", command], env={**path, **variables}, capture_output=True, check=True)
    return done.stdout.decode().split("\0")[:-1]


TAGS = ("", "2022-08-03-18-54", 'x\'; touch "owned" $(touch owned) `touch owned`')


def test_every_command_is_one_that_the_pipeline_has(groovy: list[str], tmp_path: Path) -> None:
    commands: Any = typer.main.get_command(app)
    scenarios = [(SHARED, Scenario(tag=tag, stack="prod", approved=GATES)) for tag in TAGS]
    for tag, done in zip(TAGS, builds(groovy, tmp_path, *scenarios), strict=True):
        variables = {"PROJECT": API, "TAG": tag, "STACK": "prod", "COMMIT": "4f2a9c1"}
        for command in done.commands:
            python, pipeline, name, *rest = words(command, variables, tmp_path)
            assert (python, pipeline) == ("-m", "pipeline")
            context = commands.commands[name].make_context(name, list(rest))
            assert context.params["project"] == API
            if name == "deploy":
                assert context.params["tag"] == tag
                assert context.params["stack"] in jenkins_xml.STACKS
    assert not (tmp_path / "owned").exists()


def test_each_stage_is_one_command_that_runs_by_hand_too(groovy: list[str], tmp_path: Path) -> None:
    everything = Scenario(stack="prod", approved=GATES)
    for done in builds(groovy, tmp_path, (SHARED, everything), (CONFIG, everything)):
        assert len(done.stages) == len(set(done.stages))
        assert all(shlex.split(command)[:3] == ["python", "-m", "pipeline"] for command in done.commands)


def test_each_stage_is_given_what_it_needs_and_no_other_projects_or_stacks_account(
    groovy: list[str], tmp_path: Path
) -> None:
    (done,) = builds(groovy, tmp_path, (SHARED, Scenario(stack="prod", approved=GATES)))
    assert done.variables["Checkout"] == ["GITEA_TOKEN=credentials:gitea-token"]
    # The project's own code runs here.
    assert not done.variables["Build"]
    for stack in jenkins_xml.STACKS:
        assert done.variables[f"Deploy {stack}"] == [
            f"KUBECONFIG=credentials:kubeconfig-{stack}-{API}",
            f"PULUMI_CONFIG_PASSPHRASE=credentials:pulumi-passphrase-{stack}",
        ]


def test_the_parameters_it_reads_are_those_of_the_job() -> None:
    program = Program(ROOT)
    xml = jenkins_xml.job_xml(program.settings, API, program.project(API))
    text = SHARED.read_text()
    for name in ("TAG", "STACK", "COMMIT"):
        assert f"<name>{name}</name>" in xml
        assert f"params.{name}" in text or f"${{{name}}}" in text
    assert "parameters {" not in text  # it would take the job's own away at the first build


SLIPS = [
    ("stages {", "stages {{", "startup failed"),
    ("beforeInput true", "beforeInputs true", "no directive beforeInputs in When"),
    ("steps {", "step {", "no directive step in Stage"),
    ("params.STACK == 'prod' }", "parms.STACK == 'prod' }", "no property parms"),
    ("stage('Build')", "stage('Checkout')", "Checkout is there twice"),
]


def test_slips_are_found(groovy: list[str], tmp_path: Path) -> None:
    scenarios: list[tuple[Path, Scenario]] = []
    for number, (there, instead, _) in enumerate(SLIPS):
        file = tmp_path / f"Jenkinsfile{number}"
        file.write_text(SHARED.read_text().replace(there, instead))
        scenarios.append((file, Scenario(stack="prod", approved=GATES)))
    for (_, instead, told), build in zip(SLIPS, ran(groovy, tmp_path, *scenarios), strict=True):
        assert told in build.get("error", ""), instead


def test_a_gate_that_asks_before_it_looks_is_found(groovy: list[str], tmp_path: Path) -> None:
    file = tmp_path / "Jenkinsfile"
    file.write_text(SHARED.read_text().replace("beforeInput true", "beforeInput false"))
    (done,) = builds(groovy, tmp_path, (file, Scenario()))
    assert (done.result, done.asked) == ("ABORTED", ["Deploy uat"])
