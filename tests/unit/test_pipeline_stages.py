"""The stages of a build, each by itself: checkout, build, push, deploy; real git, and a registry in memory."""

import gzip
import io
import itertools
import json
import tarfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pipeline import release, state, upload
from pipeline.__main__ import app
from pipeline.errors import PipelineError, RefusedError
from pipeline.git import Checkout, GitError, askpass
from pipeline.push import tags
from registry import ENDPOINT_VARIABLE
from tests.unit.config_checkout import Checkout as Repository
from tests.unit.fake_registry import FakeRegistry, digest

API, NAME = "Some.Api", "back/some.api"
LAYER = gzip.compress(b"base", mtime=0)
BASE: dict[str, Any] = {
    "architecture": "amd64",
    "os": "linux",
    "config": {"User": "65532:65532", "Entrypoint": ["/old"], "Cmd": ["x"], "Labels": {"kept": "yes"}},
    "rootfs": {"type": "layers", "diff_ids": [digest(b"base")]},
}
PIPELINE = """
gitea: {url: "https://gitea.example.com", owner: sjzy}
jenkins: {url: "https://jenkins.example.com"}
registry: harbor.example.com
"""
PROJECT = """
kind: backend
build:
  command: [sh, -c, "mkdir publish && cp app.txt publish/ && echo $PIPELINE_COMMIT > publish/commit"]
  base: base/dotnet:9.0
  entrypoint: [/app/run]
"""


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeRegistry]:
    """A registry with the base image."""
    made = FakeRegistry()
    made.add("base/dotnet", "9.0", BASE, LAYER)
    with made.serving() as url:
        monkeypatch.setenv(ENDPOINT_VARIABLE, url)
        yield made


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program's folder with one project, and the work folder of a build of it beside."""
    monkeypatch.setattr(upload, "_FIRST_WAIT_SECONDS", 0.01)
    folder = tmp_path / "program"
    (folder / "projects").mkdir(parents=True)
    (folder / "pipeline.yaml").write_text(PIPELINE)
    (folder / "projects" / f"{API}.yaml").write_text(PROJECT)
    commit = Repository(tmp_path / "work" / "source").commit({"app.txt": "hello"})
    state.save(tmp_path / "work", state.Build(project=API, commit=commit, config_revision="c" * 40))
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PIPELINE_WORKSPACE", str(tmp_path / "work"))
    return folder


def run(*words: str) -> str:
    """Run a command of the pipeline, and return what it says."""
    answer = CliRunner().invoke(app, list(words), catch_exceptions=False)
    assert answer.exit_code == 0, answer.output
    return answer.output


def refused(*words: str) -> str:
    with pytest.raises(PipelineError) as caught:
        CliRunner().invoke(app, list(words), catch_exceptions=False)
    return str(caught.value)


def built(program: Path) -> state.Build:
    return state.load(program.parent / "work", API)


def files_of(layer: bytes) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(layer))) as archive:
        return {each.name: each for each in archive}


def test_an_image_is_built_on_its_base_and_pushed_with_its_commits(registry: FakeRegistry, program: Path) -> None:
    run("build", API)
    run("push", API)
    done = built(program)
    assert done.tag
    manifest, config = registry.image(NAME, done.tag)
    assert done.repository == f"harbor.example.com/{NAME}"
    assert done.digest == digest(registry.manifests[NAME, done.tag])
    assert registry.manifests[NAME, "latest"] == registry.manifests[NAME, done.tag]
    assert manifest["layers"][0]["digest"] == digest(LAYER)
    own = files_of(registry.blobs[NAME, manifest["layers"][1]["digest"]])
    assert list(own) == ["app", "app/app.txt", "app/commit"]
    assert own["app/commit"].size == 41
    assert {each.mtime for each in own.values()} != {0}
    assert config["rootfs"]["diff_ids"][0] == digest(b"base")
    assert len(config["rootfs"]["diff_ids"]) == 2
    assert (config["config"]["User"], config["config"]["Entrypoint"]) == ("65532:65532", ["/app/run"])
    assert "Cmd" not in config["config"]
    assert config["config"]["Labels"] == {
        "kept": "yes",
        "org.opencontainers.image.title": API,
        "org.opencontainers.image.source": f"https://gitea.example.com/sjzy/{API}",
        "org.opencontainers.image.revision": done.commit,
        "org.opencontainers.image.version": done.tag,
        "package-platform.config-revision": "c" * 40,
    }


def test_layers_of_the_base_are_borrowed_and_sent_only_where_that_is_refused(
    registry: FakeRegistry, program: Path
) -> None:
    run("build", API)
    registry.shares = False
    run("push", API)
    assert (NAME, digest(LAYER)) in registry.blobs
    assert f"GET /v2/base/dotnet/blobs/{digest(LAYER)}" in registry.asked
    registry.asked.clear()
    registry.blobs.pop((NAME, digest(LAYER)))
    registry.shares = True
    run("push", API)
    assert f"GET /v2/base/dotnet/blobs/{digest(LAYER)}" not in registry.asked
    assert built(program).tag


def test_the_same_source_gives_the_same_image(registry: FakeRegistry, program: Path) -> None:
    layouts: list[bytes] = []
    for _ in range(2):
        Checkout(program.parent / "work" / "source", "source", {}).run("clean", "-ffdxq")
        run("build", API)
        layouts.append((program.parent / "work" / "image" / "index.json").read_bytes())
    assert layouts[0] == layouts[1]
    assert registry.manifests.keys() == {("base/dotnet", "9.0")}


def test_tags_are_for_people_first() -> None:
    found = list(itertools.islice(tags(datetime(2026, 11, 25, 9, 7, 3, tzinfo=UTC)), 4))
    assert found == ["2026-11-25-09-07", "2026-11-25-09-07-03", "2026-11-25-09-07-03-2", "2026-11-25-09-07-03-3"]


def test_a_tag_of_another_image_is_not_taken(
    registry: FakeRegistry, program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = datetime(2026, 11, 25, 9, 7, 3, tzinfo=UTC)

    def fixed(_: datetime) -> Iterator[str]:
        return tags(now)

    monkeypatch.setattr("pipeline.push.tags", fixed)
    run("build", API)
    run("push", API)
    first = built(program)
    run("push", API)
    assert built(program) == first
    assert first.tag == "2026-11-25-09-07"
    before = registry.manifests[NAME, first.tag]
    (program / "projects" / f"{API}.yaml").write_text(PROJECT.replace("/app/run", "/app/other"))
    Checkout(program.parent / "work" / "source", "source", {}).run("clean", "-ffdxq")
    run("build", API)
    run("push", API)
    assert built(program).tag == "2026-11-25-09-07-03"
    assert registry.manifests[NAME, first.tag] == before


def test_a_registry_that_is_away_for_a_moment_is_asked_again(registry: FakeRegistry, program: Path) -> None:
    run("build", API)
    registry.failures = 3
    assert "asked again" in run("push", API)
    assert built(program).tag


def test_a_registry_that_stays_away_is_named(
    registry: FakeRegistry, program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("build", API)
    registry.failures = 1000
    line = refused("push", API, "--retry-seconds", "0")
    assert line.startswith(f"harbor.example.com/{NAME}: the registry answers 503 for ")
    monkeypatch.setenv(ENDPOINT_VARIABLE, "http://127.0.0.1:9")
    assert "can't be reached at http://127.0.0.1:9" in refused("push", API, "--retry-seconds", "0")
    assert built(program).tag is None


def test_a_registry_that_is_full_is_asked_once(registry: FakeRegistry, program: Path) -> None:
    run("build", API)
    registry.full = True
    line = refused("push", API)
    assert line.startswith(f"harbor.example.com/{NAME}: the registry is full: free space or raise its quota: adding")
    assert built(program).tag is None
    assert sum(each.startswith("PUT") for each in registry.asked) == 1


def test_a_registry_without_the_base_says_so(registry: FakeRegistry, program: Path) -> None:
    (program / "projects" / f"{API}.yaml").write_text(PROJECT.replace("dotnet:9.0", "dotnet:8.0"))
    assert "the registry has no base/dotnet:8.0" in refused("build", API)
    assert built(program).image is None
    assert registry.manifests.keys() == {("base/dotnet", "9.0")}


@pytest.mark.usefixtures("registry")
@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ("command: [sh, -c, 'exit 3']", "the build failed: `sh -c exit 3` ended with exit code 3"),
        ("command: [no-such-program]", "the build command `no-such-program` can't be started"),
        (
            "command: ['true']",
            f"projects/{API}.yaml:build: has no base, and the build wrote no image to $PIPELINE_IMAGE",
        ),
        ("{command: ['true'], base: 'base/dotnet:9.0'}", f"projects/{API}.yaml:build.output: the build made no folder"),
        ("{command: ['true'], output: x}", "output is for a build on a base"),
        ("{dockerfile: Dockerfile, base: 'base/dotnet:9.0'}", "two ways to make the image"),
        ("base: base/dotnet", "build.base: string should match pattern"),
    ],
)
def test_builds_that_fail_say_why(program: Path, fields: str, line: str) -> None:
    (program / "projects" / f"{API}.yaml").write_text(f"kind: backend\nbuild:\n  {fields}\n")
    assert line in refused("build", API)
    assert built(program).image is None


@pytest.mark.usefixtures("registry")
def test_a_build_is_given_none_of_the_pipelines_secrets(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITEA_TOKEN", "hidden")
    monkeypatch.setenv("PIPELINE_WEBHOOK_KEY_FILE", "hidden")
    command = "mkdir publish && env > publish/env"
    (program / "projects" / f"{API}.yaml").write_text(PROJECT.replace(PROJECT.split('"')[1], command))
    run("build", API)
    told = (program.parent / "work" / "source" / "publish" / "env").read_text()
    assert "PIPELINE_PROJECT=Some.Api" in told
    assert "hidden" not in told


def test_a_command_may_write_the_image_itself(registry: FakeRegistry, program: Path) -> None:
    run("build", API)
    made = program.parent / "work" / "image"
    other = program.parent / "other"
    made.rename(other)
    for blob in ("base",):
        path = other / "blobs" / "sha256" / digest(LAYER).removeprefix("sha256:")
        assert not path.exists(), blob
        path.write_bytes(LAYER)
    (program / "projects" / f"{API}.yaml").write_text(
        f"kind: backend\nbuild:\n  command: [sh, -c, 'cp -r {other} $PIPELINE_IMAGE']\n"
    )
    run("build", API)
    run("push", API)
    manifest, _ = registry.image(NAME, str(built(program).tag))
    assert len(manifest["layers"]) == 2
    assert not any("mount" in each for each in registry.asked)


@pytest.mark.parametrize("content", ["{}", '{"manifests": []}', "no JSON", '{"manifests": [{"digest": "../../x"}]}'])
@pytest.mark.usefixtures("registry")
def test_what_is_no_image_is_refused(program: Path, content: str) -> None:
    (program / "projects" / f"{API}.yaml").write_text(
        'kind: backend\nbuild:\n  command: [sh, -c, \'mkdir -p $PIPELINE_IMAGE && printf %s "$0" > '
        f"$PIPELINE_IMAGE/index.json', {json.dumps(content)}]\n"
    )
    assert "image" in refused("build", API)


def test_stages_ask_for_the_one_before(program: Path) -> None:
    work = program.parent / "work"
    assert "is not built yet: run `python -m pipeline build" in refused("push", API)
    assert "is not pushed yet: run `python -m pipeline push" in refused("deploy", API, "-s", "test")
    (work / state.FILE).unlink()
    assert "there is no build here: run `python -m pipeline checkout" in refused("build", API)
    state.save(work, state.Build(project="other", commit="c" * 40))
    assert "is a build of other, not of Some.Api" in refused("build", API)
    assert "projects/some.api.yaml: there is no such project; did you mean 'Some.Api'?" in refused("build", "some.api")


def test_bad_settings_are_told_all_at_once(program: Path) -> None:
    (program / "pipeline.yaml").write_text("gitea: {url: 'https://a:b@c/', owner: sjzy}\njenkin: {}\n")
    lines = refused("checkout", API).splitlines()
    assert [line.partition(": ")[0] for line in lines] == [
        "pipeline.yaml:gitea.url",
        "pipeline.yaml:jenkins",
        "pipeline.yaml:registry",
        "pipeline.yaml:jenkin",
    ]


# Checkout.


def test_only_commits_of_the_release_branch_are_checked_out(tmp_path: Path) -> None:
    origin = Repository(tmp_path / "origin")
    first = origin.commit({"a": "1"})
    origin.git("branch", "--move", "main")
    second = origin.commit({"a": "2"})
    origin.git("checkout", "--quiet", "-b", "other")
    foreign = origin.commit({"a": "3"})
    found = Checkout(tmp_path / "checkout", str(origin.folder), {})
    assert found.fetch("main") == second
    assert found.commit(first[:9], "main") == first
    found.check_out(first)
    (found.folder / "a").write_text("changed")
    (found.folder / "left").write_text("from the build before")
    found.check_out(second)
    assert {path.name: path.read_text() for path in found.folder.iterdir() if path.is_file()} == {"a": "2"}
    with pytest.raises(RefusedError, match=f"commit {foreign} is not on the branch main: only what is there"):
        found.commit(foreign, "main")
    with pytest.raises(RefusedError, match="is not on the branch main"):
        found.commit("--upload-pack=x", "main")
    with pytest.raises(GitError, match=r"git fetch of .* failed"):
        found.fetch("missing")


def test_the_token_is_in_no_argument_and_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Git is replaced by a program that notes its arguments, and asks for a password as git does."""
    git = tmp_path / "bin" / "git"
    git.parent.mkdir()
    git.write_text(f'#!/bin/sh\nprintf "%s " "$@" >> {tmp_path}/arguments\n"$GIT_ASKPASS" "Password for x"\n')
    git.chmod(0o755)
    monkeypatch.setenv("PATH", f"{git.parent}:/usr/bin:/bin")
    with askpass("t0ken") as variables:
        assert Checkout(tmp_path, "https://gitea.example.com/a/b.git", variables).run("fetch") == "t0ken"
        script = Path(variables["GIT_ASKPASS"])
        assert "t0ken" not in script.read_text()
    assert not script.exists()
    assert "t0ken" not in (tmp_path / "arguments").read_text()


# Deploy, and the config repository.


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A command `release` that notes its arguments, tells what runs, and ends as the file `code` says."""
    command = tmp_path / "release"
    command.write_text(
        f"#!/bin/sh\n[ $1 = status ] && exec cat {tmp_path}/status.json\n"
        f'echo "$@" >> {tmp_path}/called\necho "the reason is told"\nexit $(cat {tmp_path}/code)\n'
    )
    command.chmod(0o755)
    (tmp_path / "code").write_text("0")
    monkeypatch.setattr(release, "COMMAND", command)
    return tmp_path


def config_repository(program: Path, files: dict[str, str]) -> Repository:
    (program / "Pulumi.test.yaml").write_text("config:\n  package-platform:configPath: ../config\n")
    project = program / "projects" / f"{API}.yaml"
    project.write_text(f"{PROJECT}config: {{mount: /app/config, files: [a.json]}}\n")
    made = Repository(program.parent / "work" / "config")
    made.commit(files)
    return made


@pytest.mark.parametrize("code", [0, 1, 3, 4])
def test_deploy_releases_tag_and_configuration_and_hands_on_the_exit_code(
    program: Path, commands: Path, code: int
) -> None:
    work = program.parent / "work"
    made = config_repository(program, {"common/a.json": "{}"})
    revision = made.git("rev-parse", "HEAD")
    done = state.load(work, API).model_copy(update={"tag": "2026-11-25-09-07", "config_revision": revision})
    state.save(work, done)
    (commands / "code").write_text(str(code))
    answer = CliRunner().invoke(app, ["deploy", API, "-s", "test"])
    assert answer.exit_code == code
    wanted = f"deploy {API} 2026-11-25-09-07 --stack test --cwd {program} --config-rev {revision}\n"
    assert (commands / "called").read_text() == wanted
    kept = Checkout(program.parent / "config", "config", {})
    assert kept.run("rev-parse", f"refs/pipeline/{revision}") == revision


def test_a_commit_of_configuration_is_released_where_it_changes_something(
    program: Path, commands: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = config_repository(program, {"common/a.json": "{}", "test/Third.Api/a.json": "{}"})
    before = made.git("rev-parse", "HEAD")
    for name in ("Third.Api", "Fourth.Api"):
        (program / "projects" / f"{name}.yaml").write_text((program / "projects" / f"{API}.yaml").read_text())
    after = made.commit({"common/a.json": '{"new": 1}'})

    def there(*_: object) -> Checkout:
        return Checkout(made.folder, "config", {})

    monkeypatch.setattr("pipeline.configuration.config_checkout", there)
    live = [
        {"project": API, "deployed": "1", "config": before},
        {"project": "Third.Api", "deployed": "2", "config": before},
        {"project": "Fourth.Api", "deployed": None, "config": None},
    ]
    (commands / "status.json").write_text(json.dumps({"projects": live}))
    run("config", "-s", "test")
    wanted = f"deploy {API} 1 --stack test --cwd {program} --config-rev {after}\n"
    assert (commands / "called").read_text() == wanted
    (commands / "code").write_text("1")
    with pytest.raises(PipelineError, match=f"{API}: the release of {after[:12]} ended with exit code 1"):
        run("config", "-s", "test")
    live[0]["config"] = after
    (commands / "status.json").write_text(json.dumps({"projects": live}))
    assert "changes no project's configuration" in run("config", "-s", "test")


def test_a_stack_without_a_config_repository_says_what_is_missing(program: Path) -> None:
    (program / "Pulumi.test.yaml").write_text("config: {}\n")
    work = program.parent / "work"
    state.save(work, state.load(work, API).model_copy(update={"tag": "1"}))
    assert refused("deploy", API, "-s", "test").startswith("Pulumi.test.yaml:package-platform:configPath: is needed")
