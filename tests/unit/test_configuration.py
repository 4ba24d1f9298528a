"""Configuration: which layer wins, what is refused, and that a commit is read and not the work tree."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config_repository import ConfigRepository, ConfigRepositoryError, configured
from model.configuration import LARGEST_BYTES, Configuration, digest_of, layers, stored
from model.dotenv import parse_dotenv
from model.names import configuration_names
from model.problems import SettingsError
from model.project import PORT_VARIABLE
from model.release import ConfigRef, Instruction, Record, Release, Slot
from model.stack import Application, Stack, instructed, parse_stack, with_records
from model.syntax import check_syntax
from tests.unit.config_checkout import Checkout

API = "Some.Api"
ENVIRONMENT = {"namespace": "n", "domain": "example.com", "registry": {"host": "harbor.example.com"}}
PROJECT: dict[str, Any] = {"kind": "backend", "config": {"mount": "/app/config", "files": ["settings.json"]}}


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path / "config")


def stack_of(project: Mapping[str, Any] = PROJECT, **more: Any) -> Stack:
    data = {"environment": ENVIRONMENT, "tags": {API: "1"}, "configPath": "config", **more}
    return parse_stack("Pulumi.uat.yaml", "uat", data, {f"projects/{API}.yaml": dict(project)})


def ready(checkout: Checkout, stack: Stack, state: Mapping[str, object] | None = None) -> Application:
    (application,) = configured(stack, checkout.folder.parent, "Pulumi.uat.yaml", lambda: state or {}).applications
    return application


def refused(checkout: Checkout, stack: Stack) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        ready(checkout, stack)
    return str(caught.value).splitlines()


def files(application: Application) -> dict[str, bytes]:
    assert application.content is not None
    return dict(application.content.files)


# Which layer wins.


def test_the_most_specific_file_wins(checkout: Checkout) -> None:
    everywhere = [*layers("uat", API, "settings.json"), "uat/Other.Api/settings.json"]
    for weaker in range(4):
        present = {path: f'"{path}"' for path in everywhere[weaker:]}
        checkout.commit(present, clear=True)
        assert files(ready(checkout, stack_of())) == {"settings.json": f'"{everywhere[weaker]}"'.encode()}
    assert everywhere[:4] == [
        "uat/Some.Api/settings.json",
        "uat/common/settings.json",
        "common/Some.Api/settings.json",
        "common/settings.json",
    ]


def test_a_file_is_taken_whole_and_nothing_is_merged(checkout: Checkout) -> None:
    checkout.commit({"common/settings.json": '{"a": 1, "b": 2}', "uat/Some.Api/settings.json": '{"a": 3}'})
    assert files(ready(checkout, stack_of())) == {"settings.json": b'{"a": 3}'}


def test_a_missing_file_is_told_with_the_places_that_were_looked_at(checkout: Checkout) -> None:
    checkout.commit({"test/Some.Api/settings.json": "{}"})
    assert refused(checkout, stack_of()) == [
        "projects/Some.Api.yaml:config.files.0: the config repository has no settings.json for it; looked for "
        "uat/Some.Api/settings.json, uat/common/settings.json, common/Some.Api/settings.json, "
        "common/settings.json"
    ]


def test_common_is_no_name_of_a_project(checkout: Checkout) -> None:
    checkout.commit({"common/settings.json": "1"})
    data = {"environment": ENVIRONMENT, "tags": {"common": "1"}, "configPath": "config"}
    stack = parse_stack("Pulumi.uat.yaml", "uat", data, {"projects/common.yaml": dict(PROJECT)})
    assert refused(checkout, stack) == [
        "projects/common.yaml:config: 'common' is a folder for all: no project or environment with config has it"
    ]


# Which commit is read.


def test_a_commit_is_read_and_neither_index_nor_work_tree(checkout: Checkout) -> None:
    first = checkout.commit({"common/settings.json": "1"})
    checkout.write({"common/settings.json": "2"})
    checkout.git("add", "--all")
    checkout.write({"common/settings.json": "3"})
    application = ready(checkout, stack_of())
    assert files(application) == {"settings.json": b"1"}
    assert application.config is not None
    assert application.config.revision == first


def test_a_named_commit_may_be_shortened(checkout: Checkout) -> None:
    first = checkout.commit({"common/settings.json": "1"})
    checkout.commit({"common/settings.json": "2"})
    application = ready(checkout, stack_of(configRevisions={API: first[:8]}))
    assert files(application) == {"settings.json": b"1"}
    assert application.config is not None
    assert application.config.revision == first


def test_a_bare_repository_will_do(checkout: Checkout, tmp_path: Path) -> None:
    checkout.commit({"common/settings.json": "1"})
    subprocess.run(["git", "clone", "-q", "--bare", checkout.folder, tmp_path / "bare.git"], check=True)
    assert files(ready(checkout, stack_of(configPath="bare.git"))) == {"settings.json": b"1"}


def test_the_variables_of_a_git_hook_lead_nowhere_else(checkout: Checkout, monkeypatch: pytest.MonkeyPatch) -> None:
    checkout.commit({"common/settings.json": "1"})
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    assert files(ready(checkout, stack_of())) == {"settings.json": b"1"}


def test_a_folder_inside_another_repository_is_not_taken_for_it(checkout: Checkout) -> None:
    checkout.commit({"common/settings.json": "1", "inner/x": "1"})
    (line,) = refused(checkout, stack_of(configPath="config/inner"))
    assert "Pulumi.uat.yaml:package-platform:configPath: git can't read " in line
    assert "not a git repository" in line


@pytest.mark.parametrize(
    ("more", "start", "end"),
    [
        (
            {"configPath": None},
            "Pulumi.uat.yaml:package-platform:configPath: is needed, as projects/Some.Api.yaml has config",
            "name a checkout of the config repository",
        ),
        (
            {"configPath": "nowhere"},
            "Pulumi.uat.yaml:package-platform:configPath: ",
            "clone the config repository there",
        ),
        (
            {"configRevisions": {API: "abcdef01"}},
            "Pulumi.uat.yaml:package-platform:configRevisions.Some.Api: ",
            "fetch`",
        ),
    ],
    ids=["no path", "no folder", "no commit"],
)
def test_what_can_not_be_read(checkout: Checkout, more: dict[str, Any], start: str, end: str) -> None:
    checkout.commit({"common/settings.json": "1"})
    (line,) = refused(checkout, stack_of(**more))
    assert line.startswith(start)
    assert line.endswith(end)


def test_a_repository_without_a_commit(checkout: Checkout) -> None:
    (line,) = refused(checkout, stack_of())
    assert line.endswith("has no commit yet")


def test_a_project_without_configuration_needs_no_repository(checkout: Checkout) -> None:
    application = ready(checkout, stack_of({"kind": "backend"}, configPath="nowhere"))
    assert application.config is None


def test_contents_of_every_kind_come_through(checkout: Checkout) -> None:
    binary = bytes(range(256)) * 8
    checkout.commit({"a": "", "b": "\n", "folder/ü c": "x\ny\n", "d": binary})
    repository = ConfigRepository(checkout.folder)
    tree = repository.tree(repository.commit(""))
    read = repository.contents(entry.name for entry in tree.values())
    assert {path: read[entry.name] for path, entry in tree.items()} == {
        "a": b"", "b": b"\n", "folder/ü c": b"x\ny\n", "d": binary,
    }  # fmt: skip
    with pytest.raises(ConfigRepositoryError, match="lacks the content"):
        repository.contents(["0" * 40])


# What must not be gone back to.


def recorded(application: Application) -> Record:
    assert application.config is not None
    release = Release(tag="1", config=application.config)
    return Record(live="main", slots={"main": Slot(release=release, revision="r")}, history=(release,))


def test_an_older_commit_does_not_replace_what_runs(checkout: Checkout) -> None:
    first = checkout.commit({"common/settings.json": "1"})
    checkout.commit({"common/settings.json": "2"})
    records = {"some-api": recorded(ready(checkout, stack_of()))}
    (line,) = refused(checkout, with_records(stack_of(configRevisions={API: first}), records))
    assert line.startswith(
        f"Pulumi.uat.yaml:package-platform:configRevisions.Some.Api: commit {first[:12]} was replaced by "
    )
    for leave in (API, f"{API}:1"):
        allowed = with_records(stack_of(configRevisions={API: first}, allowOlder=leave), records)
        assert files(ready(checkout, allowed)) == {"settings.json": b"1"}


def test_a_checkout_that_lacks_what_runs_is_behind(checkout: Checkout) -> None:
    checkout.commit({"common/settings.json": "1"})
    runs = Release(tag="1", config=ConfigRef(revision="f" * 40, digest="other"))
    record = Record(live="main", slots={"main": Slot(release=runs)}, history=(runs,))
    (line,) = refused(checkout, with_records(stack_of(), {"some-api": record}))
    assert "was replaced by ffffffffffff, which runs, or that is not in the checkout" in line


def test_an_older_commit_with_the_same_content_is_no_way_back(checkout: Checkout) -> None:
    first = checkout.commit({"common/settings.json": "1"})
    checkout.commit({"common/other": "2"})
    records = {"some-api": recorded(ready(checkout, stack_of()))}
    application = ready(checkout, with_records(stack_of(configRevisions={API: first}), records))
    assert application.release == records["some-api"].release


def released(checkout: Checkout, *texts: str) -> Record:
    """Return the record after a release of each text, the last one live."""
    releases: list[Release] = []
    for text in texts:
        checkout.commit({"common/settings.json": text})
        releases.insert(0, ready(checkout, stack_of()).release)
    return Record(live="main", slots={"main": Slot(release=releases[0])}, history=tuple(releases))


def test_a_revert_is_a_way_forward(checkout: Checkout) -> None:
    record = released(checkout, "1", "2")
    checkout.commit({"common/settings.json": "1"})
    assert files(ready(checkout, with_records(stack_of(), {"some-api": record}))) == {"settings.json": b"1"}


def test_what_was_rolled_back_does_not_come_again_by_itself(checkout: Checkout) -> None:
    record = released(checkout, "1", "2")
    second, first = record.history
    rolled_back = Record(live="main", slots={"main": Slot(release=first)}, history=(first, second))
    checkout.commit({"uat/Other.Api/x": "1"})
    (line,) = refused(checkout, with_records(stack_of(), {"some-api": rolled_back}))
    assert f"was replaced by {(first.config or ConfigRef(revision='', digest='')).revision[:12]}, which runs" in line
    another = with_records(stack_of(tags={API: "2"}), {"some-api": rolled_back})
    assert files(ready(checkout, another)) == {"settings.json": b"2"}, "a new tag is a new release"
    checkout.commit({"common/settings.json": "3"})
    assert files(ready(checkout, with_records(stack_of(), {"some-api": rolled_back}))) == {"settings.json": b"3"}


# What other slots need.


def in_state(application: Application) -> dict[str, object]:
    """Return a stack's resources with the ConfigMap of an application."""
    assert application.content is not None
    name = configuration_names(application.name, application.content.ref.digest)[0]
    data = {key: content.decode() for key, content in application.content.files.items()}
    return {"urn:1": {"type": "kubernetes:core/v1:ConfigMap", "outputs": {"metadata": {"name": name}, "data": data}}}


def two_slots(old: Application, new: Application) -> Record:
    green, blue = (Slot(release=each.release, revision=each.release.tag) for each in (new, old))
    return Record(live="green", slots={"green": green, "blue": blue}, history=(green.release, blue.release))


def test_a_warm_slot_keeps_its_own_configuration(checkout: Checkout) -> None:
    checkout.commit({"common/settings.json": "1"})
    old = ready(checkout, stack_of())
    checkout.commit({"common/settings.json": "2"})
    new = ready(checkout, stack_of())
    application = ready(checkout, with_records(stack_of(), {"some-api": two_slots(old, new)}))
    assert sorted(each.files["settings.json"] for each in application.contents.values()) == [b"1", b"2"]
    assert files(application.running(old.release)) == {"settings.json": b"1"}
    assert files(application) == {"settings.json": b"2"}


def test_what_the_repository_has_no_more_is_taken_from_the_state(checkout: Checkout) -> None:
    checkout.commit({"common/settings.json": "1"})
    old = ready(checkout, stack_of())
    state = in_state(old)
    # The project file asks for another file, so the old content can't be made again from the repository.
    project = {"kind": "backend", "config": {"mount": "/c", "files": ["more.json"]}}
    checkout.commit({"common/settings.json": "2", "common/more.json": "2"})
    new = ready(checkout, stack_of(project))
    application = ready(checkout, with_records(stack_of(project), {"some-api": two_slots(old, new)}), state)
    assert files(application.running(old.release)) == {"settings.json": b"1"}
    without = ready(checkout, with_records(stack_of(project), {"some-api": two_slots(old, new)}))
    assert without.running(old.release).content is None, "it is not declared, and never empty"


def test_a_way_back_is_not_refused_for_files_that_the_project_asks_for_since(checkout: Checkout) -> None:
    first = checkout.commit({"common/settings.json": "1"})
    old = ready(checkout, stack_of())
    project = {"kind": "backend", "config": {"mount": "/c", "files": ["settings.json", "more.json"]}}
    second = checkout.commit({"common/settings.json": "2", "common/more.json": "2"})
    new = ready(checkout, stack_of(project, tags={API: "2"}))
    records = {"some-api": two_slots(old, new)}
    back = {"tags": {API: "1"}, "configRevisions": {API: first}}

    def returning(**config: Any) -> Stack:
        stack = with_records(stack_of(project, allowOlder=[API], **config), records)
        told = tuple(each.model_copy(update={"returns_to": old.release}) for each in stack.applications)
        return stack.model_copy(update={"applications": told})

    rolled_back = ready(checkout, returning(**back))
    assert (files(rolled_back), rolled_back.config) == ({"settings.json": b"1"}, old.config)
    # What never ran so is no way back: another tag at that commit.
    other = returning(tags={API: "3"}, configRevisions={API: first})
    assert "the config repository has no more.json for it" in refused(checkout, other)[0]
    # Nor is a plain run one: the file may have a typing error.
    plain = with_records(stack_of(project, allowOlder=[API], **back), records)
    assert "the config repository has no more.json for it" in refused(checkout, plain)[0]
    assert second != first


def test_a_restored_release_must_have_its_configuration(checkout: Checkout) -> None:
    checkout.commit({"common/settings.json": "1"})
    lost = ConfigRef(revision="f" * 40, digest="lost")
    runs = Release(tag="1", config=lost)
    record = Record(live="main", slots={"main": Slot(release=runs)}, history=(runs,))
    instruction = Instruction(project=API, action="restore", records={"some-api": record})
    (line,) = refused(checkout, instructed(stack_of(), instruction))
    assert line.startswith("projects/Some.Api.yaml:config: its configuration of commit ffffffffffff is in neither")


def test_a_configmap_that_is_not_what_its_name_says_is_not_believed(checkout: Checkout) -> None:
    checkout.commit({"common/settings.json": "1"})
    application = ready(checkout, stack_of())
    assert application.config is not None
    state: dict[str, Any] = in_state(application)
    assert stored(state, "some-api", application.config) == application.content
    state["urn:1"]["outputs"]["data"]["settings.json"] = "2"
    assert stored(state, "some-api", application.config) is None


def test_a_project_without_a_tag_keeps_its_configuration(checkout: Checkout) -> None:
    checkout.commit({"common/settings.json": "1"})
    records = {"some-api": recorded(ready(checkout, stack_of()))}
    checkout.commit({"common/settings.json": "2"})
    application = ready(checkout, with_records(stack_of(tags={}), records))
    assert files(application) == {"settings.json": b"1"}


# Content.


@given(st.dictionaries(st.text("ab", min_size=1), st.binary(max_size=5)), st.dictionaries(st.text("AB"), st.text("ab")))
def test_equal_content_has_one_hash_whatever_the_commit(content: dict[str, bytes], env: dict[str, str]) -> None:
    reverse = dict(reversed(content.items()))
    assert digest_of(content, env) == digest_of(reverse, env)
    assert digest_of({**content, "c": b""}, env) != digest_of(content, env)
    assert digest_of(content, {**env, "C": ""}) != digest_of(content, env)


def test_releases_are_equal_by_content() -> None:
    one, two = (Release(tag="1", config=ConfigRef(revision=each, digest="d")) for each in ("a", "b"))
    assert one == two
    assert hash(one) == hash(two)
    assert one != Release(tag="1", config=ConfigRef(revision="a", digest="e"))
    assert one != Release(tag="1")


# What is refused.


@pytest.mark.parametrize(
    ("config", "line"),
    [
        ({}, "config: names neither files nor env: name some, or leave config out"),
        ({"files": ["a"]}, "config: a has no path and there is no mount: set one of the two"),
        ({"env": ".env", "mount": "/c"}, "config: no file is in mount /c: every one has a path of its own"),
        ({"mount": "/c", "files": ["a/b", "a.b"]}, "config: two files have the name a.b ('/' becomes '.')"),
        (
            {"files": [{"file": "a", "path": "/c/x"}, {"file": "b", "path": "/c/x"}]},
            "config: two files go to /c/x: change a path",
        ),
        ({"mount": "/c", "files": ["a", {"file": "b", "path": "/c/b"}]}, "config: /c/b is inside mount /c"),
        ({"mount": "/tmp/c", "files": ["a"]}, "config: /tmp/c is in /tmp, which is the pod's own"),
        ({"mount": "c", "files": ["a"]}, "config.mount: 'c' is no path in a container"),
        *(
            (
                {"mount": "/c", "files": [path]},
                f"config.files.0.file: '{path}' is no path of a file in the config repository",
            )
            for path in ("../a", "..a", "..a/b")
        ),
        (
            {"mount": "/c", "files": [{"file": "a", "pat": "/x"}]},
            "config.files.0.pat: unknown key; did you mean 'path'?",
        ),
    ],
)
def test_a_project_file_with_bad_config(config: dict[str, Any], line: str) -> None:
    with pytest.raises(SettingsError) as caught:
        stack_of({"kind": "backend", "config": config})
    (told,) = str(caught.value).splitlines()
    assert told.startswith(f"projects/Some.Api.yaml:{line}")


@pytest.mark.parametrize(
    ("revisions", "line"),
    [
        ({API: "main"}, "'main' is no commit: 7 or more hexadecimal digits, in lower case"),
        ({API: 12345678}, '12345678 is a number, not a commit: quote it ("12345678")'),
    ],
)
def test_a_commit_that_is_none(revisions: dict[str, Any], line: str) -> None:
    with pytest.raises(SettingsError) as caught:
        stack_of(configRevisions=revisions)
    assert str(caught.value) == f"Pulumi.uat.yaml:package-platform:configRevisions.Some.Api: {line}"


def test_a_commit_for_a_project_that_has_no_use_for_it() -> None:
    with pytest.raises(SettingsError) as caught:
        stack_of({"kind": "backend"}, configRevisions={API: "abcdef0", "Some.Apy": "abcdef0"})
    assert str(caught.value).splitlines() == [
        "Pulumi.uat.yaml:package-platform:configRevisions.Some.Api: projects/Some.Api.yaml has no config: remove this, "
        "or say there what",
        "Pulumi.uat.yaml:package-platform:configRevisions.Some.Apy: there is no project file for it; did you mean "
        "'Some.Api'?",
    ]


def test_what_kubernetes_takes_is_the_limit(checkout: Checkout) -> None:
    project = {"kind": "backend", "config": {"mount": "/c", "files": ["a.bin", "b.bin"]}}
    checkout.commit({"common/a.bin": bytes(LARGEST_BYTES - 10), "uat/Some.Api/b.bin": bytes(10)})
    assert sum(map(len, files(ready(checkout, stack_of(project))).values())) == LARGEST_BYTES
    checkout.commit({"uat/Some.Api/b.bin": bytes(11)})
    assert refused(checkout, stack_of(project)) == [
        "projects/Some.Api.yaml:config: the files have 1048577 bytes together, and Kubernetes takes at most 1048576: "
        "put large ones into the image or on a volume; the largest is common/a.bin with 1048566"
    ]


def test_a_link_is_no_file(checkout: Checkout) -> None:
    checkout.write({"common/real.json": "1"})
    (checkout.folder / "common" / "settings.json").symlink_to("real.json")
    checkout.commit({})
    (line,) = refused(checkout, stack_of())
    assert line == (
        "projects/Some.Api.yaml:config.files.0: common/settings.json of the config repository is a link, not a file"
    )


def test_a_pointer_of_lfs_is_no_file(checkout: Checkout) -> None:
    checkout.commit({"common/settings.json": "version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 3\n"})
    (line,) = refused(checkout, stack_of())
    assert line == "config/common/settings.json: is a pointer of Git LFS, not the file: commit it as it is"


def test_every_bad_file_is_told_at_once(checkout: Checkout) -> None:
    project = {
        "kind": "backend",
        "env": {"B": "1"},
        "config": {"mount": "/c", "files": ["a.json", "b.yaml"], "env": ".env"},
    }
    checkout.commit(
        {"common/a.json": '{\n  "a": 1,\n}', "uat/Some.Api/b.yaml": "a: [\n", "uat/common/.env": "A=1\n-\n"}
    )
    assert [line.rsplit(": ", 1)[0] for line in refused(checkout, stack_of(project))] == [
        "config/common/a.json:line 3: not readable as JSON",
        "config/uat/Some.Api/b.yaml:line 2: not readable as YAML",
        "config/uat/common/.env:line 2",
    ]
    checkout.commit({"common/a.json": "{}", "uat/Some.Api/b.yaml": "a: 1", "uat/common/.env": "A=1\nB=2\n"})
    assert refused(checkout, stack_of(project)) == [
        "projects/Some.Api.yaml:env.B: is in the config repository's file too: remove one of them"
    ]
    checkout.commit({"uat/common/.env": "POD_IP=1\nASPNETCORE_HTTP_PORTS=2\n"})
    own = "the pods of Some.Api have this variable of their own: choose another name"
    assert refused(checkout, stack_of(project)) == [f"config:env.{name}: {own}" for name in (PORT_VARIABLE, "POD_IP")]
    stack_of({**project, "env": {PORT_VARIABLE: "1"}})


GBK = "<?xml version='1.0' encoding='gb2312'?>"


@pytest.mark.parametrize(
    ("file", "text", "told"),
    [
        ("a.json", '{\n"a": 1\n"b": 2}', "line 3: not readable as JSON: Expecting ',' delimiter, column 1"),
        ("a.json", "NaN", "line 1: not readable as JSON: NaN is no value of JSON"),
        ("a.json", "[" * 100_000, "line 1: not readable as JSON: is nested too deeply"),
        ("a.json", '{"a": 1, // no\n}', "line 1: not readable as JSON: Expecting property name"),
        (
            "appsettings.json",
            '{"a": {"Key": 1, "key": 2}}',
            "line 1: not readable as JSON: 'key' is there twice",
        ),
        ("appsettings.json", "[1]", "line 1: not readable as JSON: is no object: .NET takes settings only from"),
        ("appsettings.Production.json", '{"a": 1, // yes\n "b" 2}', "line 2: not readable as JSON: Expecting ':'"),
        ("a.yml", "a: b\n\tc: d", "line 2: not readable as YAML: found character '\\t'"),
        ("a.xml", "<a>\n<b></a>", "line 2: not readable as XML: mismatched tag, column 6"),
        ("nlog.config", "<a>\n&b;</a>", "line 2: not readable as XML: undefined entity, column 1"),
        ("a.toml", "a = 1\nb = ", "line 2: not readable as TOML: Invalid value"),
        ("a.json", b'{\n"a": "\xff"}', "line 2: not readable as JSON: is not UTF-8 text"),
        ("a.xml", f"{GBK}\n<a>\u4e2d</b>".encode("gbk"), "line 2: not readable as XML: mismatched tag, column"),
        ("a.config", f"{GBK}\n\n<a>".encode() + b"\xff</a>", "line 3: not readable as XML: is not gb2312 text"),
        (
            "a.xml",
            "<?xml version='1.0' encoding='no-such'?>\n<a/>",
            "line 1: not readable as XML: no-such is no encoding that is known: declare UTF-8",
        ),
        ("a.xml", "<?xml version='1.0' encoding='hex'?>\n<a/>", "line 1: not readable as XML: hex is no encoding"),
        ("a.xml", "<?xml version='1.0' encoding='utf-7'?>\n<a>+2AA-</a>", "line 1: not readable as XML: is not utf-7"),
    ],
)
def test_a_file_that_does_not_parse_is_told_with_its_line(file: str, text: str | bytes, told: str) -> None:
    with pytest.raises(SettingsError) as caught:
        check_syntax(f"config/{file}", text if isinstance(text, bytes) else text.encode())
    assert str(caught.value).startswith(f"config/{file}:{told}")


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("a.json", '\ufeff{"a": "// no comment"}'),
        ("appsettings.json", '{ // a\n "a": "/* b */, }", /* c\n */ "d": [1, 2, ], // e\n}'),
        ("a.yaml", "a: !Own [1]\n---\nb: *x\n---\n"),
        ("a.xml", "<?xml version='1.0'?>\n<!DOCTYPE a SYSTEM 'file:///etc/passwd'>\n<a/>"),
        ("a.config", "key = value"),
        ("a.js", "window.env = {"),
        ("json", "{"),
    ],
)
def test_a_file_that_is_good_or_of_another_kind_is_let_through(file: str, text: str) -> None:
    check_syntax(f"config/{file}", text.encode())


@pytest.mark.parametrize("encoding", ["gb2312", "GBK", "gb18030", "big5", "shift_jis", "windows-1252"])
def test_xml_is_read_in_the_encoding_that_it_declares(encoding: str) -> None:
    text = f"<?xml version='1.0' encoding='{encoding}'?>\n<a>{'é' if encoding == 'windows-1252' else '中'}</a>"
    check_syntax("config/nlog.config", text.encode(encoding))


def test_xml_that_declares_gb2312_may_have_what_windows_writes_there() -> None:
    check_syntax("config/web.config", f"{GBK}<a>\u9555\u20ac</a>".encode("gbk", "xmlcharrefreplace"))


def test_environment_variables() -> None:
    text = (
        "\ufeff# comment\n\nA=1\nexport B = two words # comment\n"
        "C='a # $b\\n' # c\r\n"
        'D="a\\n\\"b\\"\\\\ \\$x"\n'
        "E=\nF=a#b\nG='#x'\nH= # none\nI=a\u0085\u2028b\n"
    )
    assert parse_dotenv(".env", text.encode()) == {
        "A": "1", "B": "two words", "C": "a # $b\\n", "D": 'a\n"b"\\ $x', "E": "", "F": "a#b", "G": "#x", "H": "",
        "I": "a\u0085\u2028b",
    }  # fmt: skip


def test_environment_variables_that_are_none() -> None:
    text = 'A=1\nhunter2\n1B=x\nA=2\nC=\'x\nD="x" y\nE="\\q"\nF=#hunter2\n'
    with pytest.raises(SettingsError) as caught:
        parse_dotenv(".env", text.encode())
    lines = str(caught.value).splitlines()
    assert [line.split(": ")[0] for line in lines] == [f".env:line {number}" for number in range(2, 9)]
    assert "hunter2" not in str(caught.value), "what is no variable may be a secret"


def test_a_short_form_of_a_file() -> None:
    short = Configuration.model_validate_json('{"mount": "/c", "files": ["conf.d/a.conf"]}')
    assert short == Configuration.model_validate_json('{"mount": "/c", "files": [{"file": "conf.d/a.conf"}]}')
    assert short.files[0].key == "conf.d.a.conf"


def test_git_is_not_there(checkout: Checkout, monkeypatch: pytest.MonkeyPatch) -> None:
    checkout.commit({"common/settings.json": "1"})
    monkeypatch.setitem(os.environ, "PATH", "/nowhere")
    (line,) = refused(checkout, stack_of())
    assert line == "Pulumi.uat.yaml:package-platform:configPath: `git` is not on PATH: install it"


@pytest.mark.parametrize(
    ("file", "text", "line"),
    [
        (
            "nginx.conf",
            "events {}\nhttp {\n  server {\n    listen 80\n  }\n}\n",
            '4: @ directive "listen" is not terminated by ";"',
        ),
        ("nginx.conf", "events {}\nhttp {\n  server { }\n", '3: @ unexpected end of file, expecting "}"'),
        ("nginx.conf", "events {}\n}\n", '2: @ unexpected "}"'),
        ("nginx.conf", "events {}\nlisten 80;\n", '2: @ "listen" directive is not allowed here'),
        ("nginx.conf", "worker_processes", '1: @ directive "worker_processes" is not terminated by ";"'),
        ("conf.d/site.conf", "server {\n  root;\n}\n", '2: @ invalid number of arguments in "root" directive'),
        ("nginx/site.conf", 'server {\n  add_header a "b;\n}\n', '2: @ unexpected end of file, expecting "}"'),
    ],
)
def test_nginx_configuration_that_does_not_parse(file: str, text: str, line: str) -> None:
    with pytest.raises(SettingsError) as caught:
        check_syntax(f"config/{file}", text.encode())
    assert str(caught.value) == f"config/{file}:line {line}".replace("@", "not readable as nginx configuration:")


@pytest.mark.parametrize(
    ("file", "text"),
    [
        (
            "nginx.conf",
            "events {}\nhttp { map $a $b { default 1; } later x; server { if ($a = b) { return 301 /; } } }",
        ),
        ("nginx.conf", 'events {} # }\nhttp { log_format m escape=json \'{"a":"$b"}\'; }'),
        ("conf.d/site.conf", "server { listen 8080; location / { root /srv; } }\n"),
        ("fluent.conf", "<source>\n"),
    ],
)
def test_nginx_configuration_that_parses(file: str, text: str) -> None:
    check_syntax(f"config/{file}", text.encode())
