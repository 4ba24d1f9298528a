"""The stages of a build, each by itself: checkout, build, push, deploy; real git, and a registry in memory."""

import base64
import gzip
import io
import itertools
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import pytest
from typer.testing import CliRunner

from config_repository import ConfigRepository
from pipeline import git, image, release, state, upload
from pipeline.__main__ import app
from pipeline.errors import PipelineError, RefusedError
from pipeline.git import Checkout, GitError, askpass
from pipeline.push import tags
from pipeline.settings import Program
from registry import ENDPOINT_VARIABLE
from tests.unit.config_checkout import Checkout as Repository
from tests.unit.fake_registry import FakeRegistry, digest
from tests.unit.stand_in import always

ROOT = Path(__file__).parents[2]
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


def test_a_push_may_be_answered_as_json(registry: FakeRegistry, program: Path) -> None:
    run("build", API)
    told = json.loads(run("push", API, "--json"))
    done = built(program)
    assert told == {"repository": done.repository, "tag": done.tag, "digest": done.digest}
    assert digest(registry.manifests[NAME, told["tag"]]) == told["digest"]


def test_a_folder_that_is_not_there_is_wrong_usage(program: Path) -> None:
    answer = CliRunner().invoke(app, ["push", API, "-C", str(program / "missing")])
    assert answer.exit_code == 2
    assert "missing' does not exist" in answer.output


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


def test_blobs_on_another_server_are_read_there_without_the_registrys_login(
    registry: FakeRegistry, program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    login = base64.b64encode(b"robot:secret").decode()
    (program.parent / "config.json").write_text(json.dumps({"auths": {"harbor.example.com": {"auth": login}}}))
    monkeypatch.setenv("DOCKER_CONFIG", str(program.parent))
    registry.login = f"Basic {login}"
    registry.shares = False
    with registry.storing():
        run("build", API)
        run("push", API)
        registry.image(NAME, str(built(program).tag))
        registry.asked.clear()
        run("push", API)
    assert f"GET /v2/base/dotnet/blobs/{digest(LAYER)}" in registry.asked_elsewhere
    assert f"HEAD /v2/{NAME}/blobs/{digest(LAYER)}" in registry.asked_elsewhere
    assert not any(each.startswith("POST") for each in registry.asked), "what is there is not sent again"


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


def test_an_immutable_tag_that_is_this_very_images_already_is_fine(
    registry: FakeRegistry, program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fixed(_: datetime) -> Iterator[str]:
        return tags(datetime(2026, 11, 25, 9, 7, 3, tzinfo=UTC))

    monkeypatch.setattr("pipeline.push.tags", fixed)
    registry.immutable = True
    run("build", API)
    run("push", API)
    first = built(program)
    run("push", API)
    assert built(program) == first
    registry.manifests[NAME, "latest"] = b"{}"
    assert "the registry answers 412 for tag latest: Failed to process" in refused("push", API)


def test_an_upload_that_takes_longer_than_the_registry_may_be_away_is_tried_again(
    registry: FakeRegistry, program: Path
) -> None:
    run("build", API)
    registry.broken_uploads, registry.slow_seconds = 1, 0.5
    assert "the registry answers 502; asked again" in run("push", API, "--retry-seconds", "0.3")
    assert built(program).tag


def test_a_try_that_comes_further_begins_the_time_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(upload.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(upload.time, "sleep", always(None))
    monkeypatch.setattr(upload, "_PART_BYTES", 1)
    breaks_after, tried = iter([1, 2, 2, 3, 3]), list[int]()

    def request(_: object, method: str, *__: str, content: Callable[[], Iterable[bytes]], **___: object) -> object:
        asked = httpx2.Request(method, "http://registry.invalid")
        if method == "POST":
            return httpx2.Response(202, headers={"Location": "/upload"}, request=asked)
        tried.append(next(breaks_after))
        assert len([*itertools.islice(content(), tried[-1] + 1)]) == tried[-1] + 1
        clock[0] += 6 if tried[-1] < 3 else 60
        return httpx2.Response(502, request=asked)

    monkeypatch.setattr(upload.Registry, "request", request)
    with pytest.raises(upload.UploadError, match="the registry answers 502 for layer"):
        upload.Repository("harbor.example.com", NAME, retry_seconds=10).send("sha256:0", b"0123456789")
    assert tried == [1, 2, 2, 3, 3]


def test_a_large_layer_may_take_its_time_to_be_stored(
    registry: FakeRegistry, program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("build", API)
    monkeypatch.setattr("registry._TIMEOUT_SECONDS", 1.0)
    registry.slow_seconds = 2.0
    assert "asked again" not in run("push", API)
    assert built(program).tag


def test_a_base_for_windows_is_not_taken(registry: FakeRegistry, program: Path) -> None:
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    linux = registry.manifests["base/dotnet", "9.0"]
    registry.manifests["base/dotnet", digest(linux)] = linux

    def offer(*systems: dict[str, str]) -> None:
        index = [
            {"digest": f"sha256:{'0' * 64}", "platform": {"architecture": machine, "os": "windows"}},
            *({"digest": digest(linux), "platform": {"architecture": machine, **system}} for system in systems),
        ]
        registry.manifests["base/dotnet", "9.0"] = json.dumps({"manifests": index}).encode()

    for system in ({"os": "linux"}, {}):
        offer(system)
        run("build", API)
        Checkout(program.parent / "work" / "source", "source", {}).run("clean", "-ffdxq")
    offer()
    assert refused("build", API) == f"base/dotnet:9.0 has no image for Linux on {machine}"


@pytest.mark.parametrize(
    ("into", "folders"),
    [
        ("/tmp", []),
        ("/tmp/site", ["tmp/site"]),
        ("/var/tmp", []),
        ("/root/app", ["root/app"]),
        ("/home/app", []),
        ("/home/app/web", ["home/app/web"]),
        ("/usr/share/nginx/html", ["usr/share/nginx", "usr/share/nginx/html"]),
        ("/app", ["app"]),
    ],
)
def test_folders_that_a_base_has_keep_their_mode(
    registry: FakeRegistry, program: Path, into: str, folders: list[str]
) -> None:
    assert registry
    (program / "projects" / f"{API}.yaml").write_text(f"{PROJECT}  into: {into}\n")
    run("build", API)
    layout = program.parent / "work" / "image"
    packed = image.blob(layout, str(image.read(layout).layers[-1]["digest"])).read_bytes()
    found = files_of(packed)
    assert [name for name, each in found.items() if each.isdir()] == folders
    assert f"{into[1:]}/app.txt" in found


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
        (
            "command: [no-such-program]",
            "the build command `no-such-program` can't be started: No such file or directory: no-such-program",
        ),
        ("command: [app.txt/x]", "the build command `app.txt/x` can't be started: Not a directory: app.txt/x"),
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
def test_a_build_script_without_its_first_line_says_how_to_begin_it(program: Path) -> None:
    script = program.parent / "work" / "source" / "build.sh"
    script.write_text("mkdir publish\n")
    script.chmod(0o755)
    (program / "projects" / f"{API}.yaml").write_text("kind: backend\nbuild: {command: [./build.sh, x]}\n")
    assert refused("build", API) == (
        "the build command `./build.sh x` can't be started: Exec format error: ./build.sh: "
        "a script has to begin with `#!/bin/sh`"
    )


def told_to_a_build(program: Path) -> dict[str, str]:
    """Build with a command of the project's own, and return the environment that it had."""
    command = "mkdir publish && env -0 > publish/env"
    (program / "projects" / f"{API}.yaml").write_text(PROJECT.replace(PROJECT.split('"')[1], command))
    run("build", API)
    lines = (program.parent / "work" / "source" / "publish" / "env").read_text().split("\0")
    return dict(line.split("=", 1) for line in lines if line)


@pytest.mark.usefixtures("registry")
@pytest.mark.parametrize(
    "name",
    [
        "GITEA_TOKEN",
        "PIPELINE_WEBHOOK_KEY_FILE",
        "KUBECONFIG",
        "AWS_SECRET_ACCESS_KEY",
        "VAULT_SERVER_TOKEN",
        "SOPS_AGE_KEY",
        "SOPS_AGE_KEY_FILE",
        "ALICLOUD_SECRET_KEY",
        "ALIBABA_CLOUD_ACCESS_KEY_SECRET",
        "AZURE_CLIENT_SECRET",
        "ARM_CLIENT_SECRET",
        "GOOGLE_APPLICATION_CREDENTIALS",
        "PULUMI_ACCESS_TOKEN",
        "PULUMI_BACKEND_URL",
        "DOCKER_CONFIG",
        "REGISTRY_AUTH_FILE",
        "PIPELINE_BUILD_DOCKER_CONFIG",
    ],
)
def test_a_build_is_given_none_of_the_pipelines_secrets(
    program: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "hidden")
    told = told_to_a_build(program)
    assert told["PIPELINE_PROJECT"] == API
    assert told["PATH"] == os.environ["PATH"]
    assert name not in told


@pytest.mark.usefixtures("registry")
def test_a_build_may_be_given_a_login_of_its_own(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", "/that-pushes")
    monkeypatch.setenv("PIPELINE_BUILD_DOCKER_CONFIG", "/that-pulls")
    assert told_to_a_build(program)["DOCKER_CONFIG"] == "/that-pulls"


BUILDAH = """#!/bin/sh
echo "$@" >> {folder}/called
env > {folder}/env
case $1 in
push) cp -r {folder}/layout "${{3#oci:}}" ;;
rmi) cat {folder}/refusal >&2 2>/dev/null && exit 1 ;;
esac
exit 0
"""


@pytest.fixture
def buildah(registry: FakeRegistry, program: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program `buildah` that notes how it was called, and pushes an image that was made before."""
    assert registry
    run("build", API)
    folder = program.parent / "buildah"
    folder.mkdir()
    (program.parent / "work" / "image").rename(folder / "layout")
    (folder / "buildah").write_text(BUILDAH.format(folder=folder))
    (folder / "buildah").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    (program / "projects" / f"{API}.yaml").write_text("kind: backend\nbuild: {dockerfile: Dockerfile}\n")
    return folder


def test_each_build_of_a_dockerfile_has_an_image_name_of_its_own_and_leaves_none(program: Path, buildah: Path) -> None:
    names: set[str] = set()
    for _ in range(2):
        (buildah / "called").unlink(missing_ok=True)
        run("build", API)
        made, pushed, removed = (line.split() for line in (buildah / "called").read_text().splitlines())
        name = made[made.index("--tag") + 1]
        assert pushed == ["push", name, f"oci:{program.parent}/work/image"]
        assert removed == ["rmi", name]
        names.add(name)
    assert len(names) == 2
    assert built(program).image


def test_an_image_that_stays_on_the_agent_is_a_warning(program: Path, buildah: Path) -> None:
    (buildah / "refusal").write_text("image is in use\n")
    said = run("build", API)
    assert "warning: the image localhost/pipeline-build:" in said
    assert "stays on this agent: image is in use" in said
    assert built(program).image


def test_buildah_has_the_registrys_login_and_no_other_secret(buildah: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", "/that-pushes")
    monkeypatch.setenv("PIPELINE_BUILD_DOCKER_CONFIG", "/that-pulls")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden")
    run("build", API)
    told = (buildah / "env").read_text().splitlines()
    assert "DOCKER_CONFIG=/that-pushes" in told
    assert "hidden" not in "".join(told)


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


def test_git_keeps_what_the_agent_sets_and_nothing_that_leads_to_another_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = {"GIT_SSL_CAINFO": "/etc/ca.pem", "GIT_SSH_COMMAND": "ssh -F x", "GIT_CONFIG_GLOBAL": "/etc/own"}
    foreign = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_SHALLOW_FILE")
    command = tmp_path / "bin" / "git"
    command.parent.mkdir()
    command.write_text("#!/bin/sh\nexec env\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{command.parent}:/usr/bin:/bin")
    for name, value in {**own, **dict.fromkeys(foreign, "/elsewhere"), "GIT_TERMINAL_PROMPT": "1"}.items():
        monkeypatch.setenv(name, value)
    told = dict(line.split("=", 1) for line in Checkout(tmp_path, "origin", {}).run("fetch").splitlines())
    assert own.items() <= told.items()
    assert not told.keys() & {*foreign}
    assert told["GIT_TERMINAL_PROMPT"] == "0"


@pytest.fixture
def origin(program: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    """The project's repository, where the program looks for it."""
    made = Repository(program.parent / "gitea" / f"{API}.git")
    made.git("checkout", "--quiet", "-b", "main")
    made.commit({"a": "1"})

    @contextmanager
    def variables() -> Generator[Mapping[str, str]]:
        yield {
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": f"url.file://{program.parent}/gitea/.insteadOf",
            "GIT_CONFIG_VALUE_0": "https://gitea.example.com/sjzy/",
        }

    monkeypatch.setattr("pipeline.checkout.credentials", variables)
    return made


POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'a' * 64}\nsize 123456\n"


def test_a_project_with_submodules_or_files_of_lfs_is_not_built_without_them(program: Path, origin: Repository) -> None:
    origin.commit({f"art/{number}.png": POINTER for number in range(5)})
    origin.git("update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},libs/中")
    origin.git("commit", "--quiet", "--message=test")
    assert refused("checkout", API).splitlines() == [
        f"{API}: libs/中 is a submodule, which is not fetched: commit its files, or take them as a package",
        *(f"{API}: art/{number}.png is a pointer of Git LFS, not the file: commit it as it is" for number in range(3)),
        f"{API}: and 2 more",
    ]
    assert not (program.parent / "work" / state.FILE).exists()


def test_what_only_looks_like_a_file_of_lfs_is_built(program: Path, origin: Repository) -> None:
    origin.write({"docs/lfs.md": f"A pointer is\n{POINTER}", "long": POINTER.ljust(1025), "名": "x", "empty": ""})
    (origin.folder / "link").symlink_to("/dev/zero")
    (origin.folder / "gone").symlink_to("nowhere")
    commit = origin.commit({".gitattributes": "*.png filter=lfs diff=lfs merge=lfs -text\n"})
    assert f"{API} is at {commit}" in run("checkout", API)
    assert program


@pytest.mark.parametrize("left", ["index.lock", "refs/remotes/origin/main.lock", "half"])
def test_what_a_killed_git_left_stops_no_later_build(program: Path, origin: Repository, left: str) -> None:
    own = program.parent / "work" / "source" / ".git"
    run("checkout", API)
    if left == "half":
        shutil.rmtree(own)
        own.mkdir()
    else:
        (own / left).touch()
    second = origin.commit({"a": "2"})
    assert f"{API} is at {second}" in run("checkout", API)
    assert (own.parent / "a").read_text() == "2"


@pytest.mark.parametrize("way", ["settings", "a file", "another repository"])
def test_what_a_build_had_git_run_is_not_run_by_the_next_one(program: Path, origin: Repository, way: str) -> None:
    """It would be given the token."""
    run("checkout", API)
    source, ran = program.parent / "work" / "source", program.parent / "ran"
    own = source / ".git"
    if way == "a file":
        own.rename(source.parent / "theirs")
        own.write_text(f"gitdir: {source.parent / 'theirs'}\n")
    elif way == "another repository":
        shutil.copytree(own, source.parent / "theirs")
        (own / "commondir").write_text(f"{source.parent / 'theirs'}\n")
    command = f"touch {ran}; cat"
    theirs = own if way == "settings" else source.parent / "theirs"
    with (theirs / "config").open("a") as file:
        file.write(f'[core]\nfsmonitor = "{command}"\n[filter "x"]\nsmudge = "{command}"\nclean = "{command}"\n')
    (theirs / "info").mkdir(exist_ok=True)
    (theirs / "info" / "attributes").write_text("* filter=x\n")
    second = origin.commit({"a": "2", ".gitattributes": "* filter=x\n"})
    assert f"{API} is at {second}" in run("checkout", API)
    assert (source / "a").read_text() == "2"
    assert not ran.exists()


def test_a_server_that_is_down_leaves_the_message_of_git(program: Path, origin: Repository) -> None:
    run("checkout", API)
    origin.folder.rename(origin.folder.with_name("gone"))
    assert f"git fetch of https://gitea.example.com/sjzy/{API}.git failed: " in refused("checkout", API)
    origin.folder.with_name("gone").rename(origin.folder)
    run("checkout", API)
    assert (program.parent / "work" / "source" / "a").read_text() == "1"


def test_a_checkout_that_fails_leaves_nothing_of_the_build_before(program: Path, origin: Repository) -> None:
    work = program.parent / "work"
    state.save(work, built(program).model_copy(update={"tag": "2026-11-25-09-07"}))
    assert "is not on the branch main" in refused("checkout", API, "--commit", "f" * 40)
    assert origin
    assert not (work / state.FILE).exists()


def test_git_that_takes_too_long_ends_with_all_that_it_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A helper that is left would write into a folder that the next try makes anew."""
    command = tmp_path / "bin" / "git"
    command.parent.mkdir()
    command.write_text(f"#!/bin/sh\nsleep 600 &\necho $! > {tmp_path}/helper\nwait\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{command.parent}:/usr/bin:/bin")
    monkeypatch.setattr(git, "_SECONDS", 0.5)
    with pytest.raises(GitError, match="git fetch of origin did not end in 0 s"):
        Checkout(tmp_path, "origin", {}).run("fetch")
    arguments = Path(f"/proc/{(tmp_path / 'helper').read_text().strip()}/cmdline")
    deadline = time.monotonic() + 30
    while arguments.exists() and arguments.read_bytes():  # what has ended and was not waited for has none
        assert time.monotonic() < deadline, "the helper is still there"
        time.sleep(0.02)


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
    monkeypatch.setattr(release, "COMMAND", (str(command),))
    return tmp_path


def config_repository(program: Path, files: dict[str, str]) -> Repository:
    (program / "Pulumi.test.yaml").write_text("config:\n  package-platform:configPath: ../config\n")
    project = program / "projects" / f"{API}.yaml"
    project.write_text(f"{PROJECT}config: {{mount: /app/config, files: [a.json]}}\n")
    made = Repository(program.parent / "work" / "config")
    made.commit(files)
    return made


INTERRUPTIBLE = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from pipeline import release
from pipeline.__main__ import main
release.COMMAND = (sys.executable, "-c", sys.argv.pop(1))
main()
"""
SLOW_TO_END = """
import signal, sys, time
def stop(*_):
    time.sleep(1)
    print("the way back", flush=True)
    sys.exit({code})
signal.signal(signal.SIGINT, stop)
print("begun", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize(("code", "ended"), [(3, 3), (130, 130), (0, 130)])
def test_an_interrupted_release_is_waited_for(program: Path, code: int, ended: int) -> None:
    """Ctrl-C at a terminal goes to both; pulumi is stopped in order, which takes its time."""
    line = [
        sys.executable,
        "-c",
        INTERRUPTIBLE,
        SLOW_TO_END.format(code=code),
        "deploy",
        API,
        "-s",
        "test",
        "--tag",
        "1",
    ]
    with subprocess.Popen(
        line,
        cwd=program,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "begun\n"
        os.killpg(process.pid, signal.SIGINT)
        said, errors = process.communicate(timeout=50)
    assert (said, process.returncode) == ("the way back\n", ended)
    assert errors == f"pipeline: interrupted: `release deploy` ended with exit code {code}\n"


@pytest.mark.parametrize(
    ("code", "named", "held"), [(0, False, False), (1, False, False), (3, True, False), (4, False, True)]
)
def test_deploy_releases_tag_and_configuration_and_hands_on_the_exit_code(
    program: Path, commands: Path, code: int, *, named: bool, held: bool
) -> None:
    """Nothing older than what another job has released meanwhile, unless somebody named it; what is held stays."""
    work = program.parent / "work"
    made = config_repository(program, {"common/a.json": "{}"})
    revision = made.git("rev-parse", "HEAD")
    told = {"tag": "2026-11-25-09-07", "config_revision": revision, "config_named": named}
    done = state.load(work, API).model_copy(update=told)
    if held:
        file = program / "Pulumi.test.yaml"
        file.write_text(f'{file.read_text()}  package-platform:configRevisions: {{{API}: "1234567"}}\n')
    state.save(work, done)
    (commands / "code").write_text(str(code))
    answer = CliRunner().invoke(app, ["deploy", API, "-s", "test"])
    assert answer.exit_code == code
    config = "" if held else f" --config-rev {revision}" + ("" if named else " --or-newer")
    wanted = f"deploy {API} 2026-11-25-09-07 --stack test --cwd {program}{config}\n"
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
    wanted = f"deploy {API} 1 --stack test --cwd {program} --config-rev {after} --or-newer\n"
    assert (commands / "called").read_text() == wanted
    file = program / "Pulumi.test.yaml"
    file.write_text(f'{file.read_text()}  package-platform:configRevisions: {{{API}: "{before[:9]}"}}\n')
    (commands / "called").unlink()
    assert f"{API} stays at {before[:9]}, as Pulumi.test.yaml says" in run("config", "-s", "test")
    assert not (commands / "called").exists()
    file.write_text(file.read_text().split("  package-platform:configRevisions")[0])
    (commands / "code").write_text("1")
    with pytest.raises(PipelineError, match=f"{API}: the release of {after[:12]} ended with exit code 1"):
        run("config", "-s", "test")
    live[0]["config"] = after
    (commands / "status.json").write_text(json.dumps({"projects": live}))
    assert "changes no project's configuration" in run("config", "-s", "test")


def test_after_an_interruption_no_other_project_is_released(
    program: Path, commands: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = config_repository(program, {"common/a.json": "{}"})
    (program / "projects" / "Third.Api.yaml").write_text((program / "projects" / f"{API}.yaml").read_text())

    def there(*_: object) -> Checkout:
        return Checkout(made.folder, "config", {})

    monkeypatch.setattr("pipeline.configuration.config_checkout", there)
    live = [{"project": name, "deployed": "1", "config": None} for name in (API, "Third.Api")]
    (commands / "status.json").write_text(json.dumps({"projects": live}))
    command = commands / "release"
    command.write_text(command.read_text().replace("exit ", "sleep 1; kill -INT $PPID; sleep 0.5; exit "))
    (commands / "code").write_text("3")
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(PipelineError, match="interrupted: `release deploy` ended with exit code 3") as caught:
            run("config", "-s", "test")
    finally:
        signal.signal(signal.SIGINT, before)
    assert caught.value.code == 3
    assert len((commands / "called").read_text().splitlines()) == 1


def test_a_stack_without_a_config_repository_says_what_is_missing(program: Path) -> None:
    (program / "Pulumi.test.yaml").write_text("config: {}\n")
    work = program.parent / "work"
    state.save(work, state.load(work, API).model_copy(update={"tag": "1"}))
    assert refused("deploy", API, "-s", "test").startswith("Pulumi.test.yaml:package-platform:configPath: is needed")


def test_the_configuration_of_a_tag_is_the_newest_that_was_handed_over(program: Path) -> None:
    made = config_repository(program, {"common/a.json": "1"})
    first = made.git("rev-parse", "HEAD")
    second = made.commit({"common/a.json": "2"})
    source, stack = Checkout(made.folder, "config", {}), Program(program)
    folder = release.hand_over(source, stack, "test", first)
    assert ConfigRepository(folder).commit("") == first
    assert Checkout(folder, "config", {}).run("rev-parse", "--is-bare-repository") == "true"
    release.hand_over(source, stack, "test", second)
    assert ConfigRepository(folder).commit("") == second
    release.hand_over(source, stack, "test", first)
    assert ConfigRepository(folder).commit("") == second
    assert ConfigRepository(folder).commit(first) == first


def test_a_branch_that_was_rewritten_is_followed_with_a_warning(
    program: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = config_repository(program, {"common/a.json": "1"})
    first = made.git("rev-parse", "HEAD")
    second = made.commit({"common/a.json": "2"})
    made.git("checkout", "--quiet", first)
    beside = made.commit({"common/a.json": "3"})
    after = made.commit({"common/a.json": "4"})
    source, stack = Checkout(made.folder, "config", {}), Program(program)
    release.hand_over(source, stack, "test", second)
    assert capsys.readouterr().err == ""
    folder = release.hand_over(source, stack, "test", beside)
    assert ConfigRepository(folder).commit("") == beside
    assert ConfigRepository(folder).commit(second) == second
    assert capsys.readouterr().err == (
        f"warning: {beside[:12]} does not follow {second[:12]}, the newest commit that {folder} had: the branch of the "
        f"config repository was rewritten; releases that name no commit read {beside[:12]} now\n"
    )
    release.hand_over(source, stack, "test", after)
    release.hand_over(source, stack, "test", first)
    assert ConfigRepository(folder).commit("") == after
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("linked", [False, True])
def test_an_empty_folder_is_filled_where_it_is(program: Path, *, linked: bool) -> None:
    """A mount can't be replaced, and neither can a link."""
    made = config_repository(program, {"common/a.json": "1"})
    folder = program.parent / ("mounted" if linked else "config")
    folder.mkdir()
    if linked:
        (program.parent / "config").symlink_to(folder)
    there = folder.stat().st_ino
    first = made.git("rev-parse", "HEAD")
    release.hand_over(Checkout(made.folder, "config", {}), Program(program), "test", first)
    assert ConfigRepository(folder).commit("") == first
    assert Checkout(folder, "config", {}).run("rev-parse", "--is-bare-repository") == "true"
    assert folder.stat().st_ino == there


def test_a_folder_with_something_else_in_it_is_left_alone(program: Path) -> None:
    made = config_repository(program, {"common/a.json": "1"})
    (program.parent / "config").mkdir()
    (program.parent / "config" / "own").touch()
    with pytest.raises(GitError, match="not a git repository"):
        release.hand_over(Checkout(made.folder, "config", {}), Program(program), "test", made.git("rev-parse", "HEAD"))
    assert [path.name for path in (program.parent / "config").iterdir()] == ["own"]


def test_a_checkout_of_peoples_own_is_left_as_it_is(program: Path) -> None:
    made = config_repository(program, {"common/a.json": "1"})
    first = made.git("rev-parse", "HEAD")
    made.git("clone", "--quiet", str(made.folder), str(program.parent / "config"))
    second = made.commit({"common/a.json": "2"})
    folder = release.hand_over(Checkout(made.folder, "config", {}), Program(program), "test", second)
    assert ConfigRepository(folder).commit("") == first
    assert ConfigRepository(folder).commit(second) == second


def test_jobs_that_hand_over_at_the_same_moment_leave_the_newest(program: Path) -> None:
    made = config_repository(program, {"common/a.json": "0"})
    commits = [made.commit({"common/a.json": str(number)}) for number in range(1, 9)]
    source, stack = Checkout(made.folder, "config", {}), Program(program)

    def handed_over(commit: str) -> Path:
        return release.hand_over(source, stack, "test", commit)

    with ThreadPoolExecutor(len(commits)) as pool:
        assert len({*pool.map(handed_over, reversed(commits))}) == 1
    assert ConfigRepository(program.parent / "config").commit("") == commits[-1]
    assert not [path.name for path in program.parent.iterdir() if path.name.startswith(".config-")]


# The command `release`, where there is a virtual environment beside it and where there is none.

TOLD = "import os, sys; print(sys.prefix, os.environ['PYTHONPATH'], *sys.argv[1:])\n"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout of the program, in which `release` tells by which Python it was started."""
    folder = tmp_path / "checkout"
    (folder / "release").mkdir(parents=True)
    (folder / "release" / "__main__.py").write_text(TOLD)
    (folder / "bin").mkdir()
    shutil.copy(ROOT / "bin" / "release", folder / "bin")
    return folder


def started(folder: Path, path: str) -> subprocess.CompletedProcess[str]:
    command = [str(folder / "bin" / "release"), "status"]
    variables = {"PATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, cwd="/", env=variables, capture_output=True, text=True, check=False)


def test_release_has_the_packages_of_the_checkout(checkout: Path) -> None:
    (checkout / ".venv").symlink_to(sys.prefix)
    finished = started(checkout, "/usr/bin:/bin")
    assert finished.stdout.split() == [str(checkout / ".venv"), str(checkout), "status"], finished.stderr


def test_release_without_packages_of_its_own_takes_those_of_path(checkout: Path) -> None:
    finished = started(checkout, f"{sys.prefix}/bin:/usr/bin:/bin")
    assert finished.stdout.split() == [sys.prefix, str(checkout), "status"], finished.stderr


@pytest.mark.parametrize("python3", ["exec false", "exec no-such-python"])
def test_release_without_any_packages_says_how_to_get_them(checkout: Path, tmp_path: Path, python3: str) -> None:
    (tmp_path / "python3").write_text(f"#!/bin/sh\n{python3}\n")
    (tmp_path / "python3").chmod(0o755)
    finished = started(checkout, f"{tmp_path}:/usr/bin:/bin")
    assert finished.returncode == 2
    assert finished.stderr.startswith("release: ")
    assert f"run `make .venv/.stamp` in {checkout}" in finished.stderr
    assert len(finished.stderr.splitlines()) == 1


def test_the_pipeline_starts_release_with_its_own_python(
    program: Path, checkout: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(release, "PROGRAM", checkout)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    # A folder of that name, where the command is run, is not it.
    (program / "release").mkdir()
    (program / "release" / "__main__.py").write_text("print('another')\n")
    assert release.deploy(Program(program), "test", API, "1", None) == 0
    told = capfd.readouterr().out.split()
    assert told[:2] == [sys.prefix, str(checkout)]
    assert told[2:] == ["deploy", API, "1", "--stack", "test", "--cwd", str(program)]
