"""Migrations: once for each release, before its pods, and nobody goes back past one without knowing."""

from typing import Any

import kubernetes_validate
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from manifests.package_app import package_app, package_app_plan
from model.environment import Environment
from model.migration import job_name, migrated, next_migration, noted
from model.names import LABEL_LIMIT, NAME_LIMIT
from model.plan import CanaryWish
from model.project import BackendProject, Migration, parse_project
from model.release import ConfigRef, Instruction, Migrated, Record, Release, Slot, failed_jobs_of
from model.stack import Application, Image

COMMAND = ("dotnet", "Migrate.dll")
ENVIRONMENT = Environment.model_validate(
    {"name": "test", "namespace": "package-test", "domain": "a.test", "registry": {"host": "harbor.a.test"}}
)


def rel(tag: str) -> Release:
    return Release(tag=tag, digest=f"sha256:{tag}")


def ran(*tags: str, note: Migrated | None = None) -> Record:
    """Return the record of a project that runs the first tag, and ran the others before."""
    slots = {"main": Slot(release=rel(tags[0]), revision=f"r{tags[0]}")}
    return Record.model_validate({"live": "main", "slots": slots, "history": tuple(map(rel, tags)), "migrated": note})


def after(
    record: Record | None, tag: str, canary: str = "", command: tuple[str, ...] | None = COMMAND
) -> Migrated | None:
    return migrated(record, "x", rel(tag), rel(canary) if canary else None, command)


def note(tag: str, *before: str) -> Migrated:
    return Migrated(release=rel(tag), job=job_name("x", rel(tag), COMMAND), before=before)


@pytest.mark.parametrize(
    ("record", "tag", "canary", "expected"),
    [
        (None, "1", "", note("1")),
        (ran("1"), "1", "", None),
        (ran("1"), "2", "", note("2", "1")),
        (ran("2", "1", note=note("2", "1")), "2", "", note("2", "1")),
        (ran("2", "1", note=note("2", "1")), "3", "", note("3", "2", "1")),
        (ran("2", "1", note=note("2", "1")), "1", "", note("2")),
        (ran("1", "2", note=note("2")), "2", "", note("2")),
        (ran("1", note=note("2", "1")), "2", "", note("2", "1")),
        (ran("1", "0"), "1", "2", note("2", "0")),
        (ran("1", "0", note=note("2", "0")), "1", "", note("2", "0")),
    ],
    ids=[
        "first release", "added without a release", "new release", "again", "the next", "back past it", "forth to it",
        "it ran, its pods failed", "a canary", "that canary aborted",
    ],
)  # fmt: skip
def test_what_the_record_says(record: Record | None, tag: str, canary: str, expected: Migrated | None) -> None:
    assert after(record, tag, canary) == expected


def test_the_canary_that_is_promoted_was_migrated_to() -> None:
    started = ran("1", "0", note=after(ran("1", "0"), "1", "2"))
    assert next_migration(started, rel("2"), None, COMMAND) is None


@pytest.mark.parametrize(
    ("ran_before", "wanted"),
    [(ran("1", "2", note=note("2")), "1"), (ran("1", note=note("2", "1")), "2")],
    ids=["gone back, then other configuration", "it ran, its pods failed by their configuration"],
)
def test_other_configuration_migrates_nothing(ran_before: Record, wanted: str) -> None:
    """A migration is the image's: an old one's must not meet a schema that is newer."""
    pushed = rel(wanted).model_copy(update={"config": ConfigRef(revision="4f2a9c1", digest="of-what-was-pushed")})
    assert next_migration(ran_before, pushed, None, COMMAND) is None
    assert migrated(ran_before, "x", pushed, None, COMMAND) == migrated(ran_before, "x", rel(wanted), None, COMMAND)


def test_a_tag_that_was_pushed_anew_is_another_image() -> None:
    anew = Release(tag="1", digest="sha256:anew")
    assert next_migration(ran("1"), anew, None, COMMAND) == anew


def test_a_job_that_was_removed_does_not_come_back_with_the_command() -> None:
    without = after(ran("2", "1", note=note("2", "1")), "2", command=None)
    assert without == Migrated(release=rel("2"), job="", before=("1",))
    assert after(ran("2", "1", note=without), "2") == without


def test_what_lies_behind_a_migration() -> None:
    record = ran("3", "2", "1", note=note("2", "1"))
    assert record.migration_after(rel("1")) == rel("2")
    assert record.migration_after(rel("2")) is None
    assert record.migration_after(rel("4")) is None
    assert ran("2", "1").migration_after(rel("1")) is None


@given(st.lists(st.tuples(st.sampled_from("123456"), st.booleans()), max_size=12))
def test_going_back_migrates_nothing_and_what_runs_is_never_behind_a_migration(wishes: list[tuple[str, bool]]) -> None:
    """Whatever is released, fails after its migration, or is gone back to."""
    record: Record | None = None
    for tag, works in wishes:
        new = next_migration(record, rel(tag), None, COMMAND)
        said = after(record, tag)
        if record is None:
            assert new == rel(tag)
            record = ran(tag, note=said)
            continue
        noted_tag = record.migrated.release.tag if record.migrated else ""
        assert (new is None) == (tag in {each.tag for each in record.history} or tag == noted_tag)
        assert said is not None
        if works:
            record = ran(tag, *(each.tag for each in record.history if each.tag != tag), note=said)
            if new:
                assert {each.tag for each in record.history if record.migration_after(each)} == {
                    each.tag for each in record.history[1:]
                }
        elif new:
            # Its pods failed, and the release before was put back: what was migrated stays noted.
            record = record.model_copy(update={"migrated": noted(record, new, "job", record.release)})
        assert record.migration_after(record.release) is None


def test_a_job_is_named_by_its_release_and_a_failed_one_is_tried_under_another_name() -> None:
    first = job_name("x", rel("1"), COMMAND)
    assert first == job_name("x", rel("1"), list(COMMAND))
    second = job_name("x", rel("1"), COMMAND, [first])
    names = [first, second, job_name("x", rel("1"), COMMAND, [first, second]), job_name("x", rel("2"), COMMAND)]
    assert len({*names, job_name("x", rel("1"), ["other"])}) == 5
    assert job_name("x", rel("1"), COMMAND, ["another"]) == first
    assert len(job_name("x" * NAME_LIMIT, rel("1"), COMMAND)) + len("-abcde") <= LABEL_LIMIT


def test_failed_jobs_are_found_in_the_state() -> None:
    def job(name: str, condition: str) -> dict[str, Any]:
        status = {"conditions": [{"type": condition, "status": "True"}]}
        return {"type": "kubernetes:batch/v1:Job", "outputs": {"metadata": {"name": name}, "status": status}}

    resources = {"a": job("failed", "Failed"), "b": job("done", "Complete"), "c": {"type": "x"}, "d": 1}
    resources["e"] = {"type": "kubernetes:batch/v1:Job", "outputs": None}
    assert failed_jobs_of(resources) == ("failed",)


def application(**fields: Any) -> Application:
    project = parse_project("projects/x.yaml", {"kind": "backend", "migrate": list(COMMAND), "env": {"A": "b"}}, "test")
    return Application.model_validate(
        {
            "gitea_name": "x",
            "file": "projects/x.yaml",
            "project": project,
            "image": Image(repository="harbor.a.test/back/x", tag="2", digest="sha256:2"),
            **fields,
        }
    )


def test_the_job_is_the_applications_container_with_another_command() -> None:
    given_application = application(record=ran("1"))
    plan = package_app_plan(given_application, ENVIRONMENT)
    workload = package_app(given_application, ENVIRONMENT, plan)
    job = workload.migration
    assert job is not None
    for version in ("1.34", "1.37"):
        kubernetes_validate.validate(job, version, strict=True)
    pod, served = job["spec"]["template"], workload.slots[0].deployment["spec"]["template"]
    (migrating,), (serving,) = pod["spec"]["containers"], served["spec"]["containers"]
    assert migrating["command"] == list(COMMAND)
    for shared in ("image", "env", "securityContext", "resources", "volumeMounts"):
        assert migrating[shared] == serving[shared]
    assert not {"ports", "readinessProbe", "livenessProbe", "startupProbe", "lifecycle"} & migrating.keys()
    for shared in ("serviceAccountName", "securityContext", "volumes", "automountServiceAccountToken"):
        assert pod["spec"][shared] == served["spec"][shared]
    assert (job["spec"]["backoffLimit"], job["spec"]["activeDeadlineSeconds"]) == (0, 600)
    assert "ttlSecondsAfterFinished" not in job["spec"]
    assert not workload.service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
    assert {"slot", "release"} & pod["metadata"]["labels"].keys() == set()
    manifests = workload.manifests()
    assert manifests.index(job) < manifests.index(workload.slots[0].deployment)
    record = Record.model_validate_json(workload.service["metadata"]["annotations"]["package-platform/release"])
    assert record.migrated == Migrated(release=rel("2"), job=job["metadata"]["name"], before=("1",))


def test_the_kubelet_changes_nothing_in_a_command() -> None:
    command = ["psql", "-c", "do $$ begin $(A) end $$", "costs $5"]
    project = parse_project("projects/x.yaml", {"kind": "backend", "migrate": command}, "test")
    given_application = application(record=ran("1"), project=project)
    job = package_app(given_application, ENVIRONMENT, package_app_plan(given_application, ENVIRONMENT)).migration
    assert job is not None
    (migrating,) = job["spec"]["template"]["spec"]["containers"]
    assert migrating["command"] == ["psql", "-c", "do $$$$ begin $$(A) end $$$$", "costs $5"]


def test_a_rollback_keeps_the_job_of_what_was_migrated_and_runs_none() -> None:
    back = application(record=ran("3", "2", note=Migrated(release=rel("3"), job="x-migrate-3", before=("2",))))
    job = package_app(back, ENVIRONMENT, package_app_plan(back, ENVIRONMENT)).migration
    assert job is not None
    assert job["metadata"]["name"] == "x-migrate-3"
    assert job["spec"]["template"]["spec"]["containers"][0]["image"].endswith(":3@sha256:3")


def test_what_was_migrated_stays_noted_when_a_failed_release_is_put_back() -> None:
    noted = Migrated(release=rel("2"), job="x-migrate-2", before=())
    restored = application(record=ran("1", note=noted), action="restore").running(rel("1"))
    assert package_app_plan(restored, ENVIRONMENT).record.migrated == noted


def test_a_project_without_migrations_has_no_job_and_an_unchanged_record() -> None:
    project = BackendProject(kind="backend")
    plain = application(project=project, record=ran("1"))
    plan = package_app_plan(plain, ENVIRONMENT)
    assert package_app(plain, ENVIRONMENT, plan).migration is None
    assert "migrated" not in plan.record.to_annotation()


def test_a_canary_migrates_before_its_pods() -> None:
    project = parse_project("x.yaml", {"kind": "backend", "strategy": "canary", "migrate": ["m"]}, "test")
    wish = CanaryWish(tag="3", weight=10)
    given_application = application(project=project, record=ran("2"), canary=wish, canary_digest="sha256:3")
    job = package_app(given_application, ENVIRONMENT, package_app_plan(given_application, ENVIRONMENT)).migration
    assert job is not None
    assert job["spec"]["template"]["spec"]["containers"][0]["image"].endswith(":3@sha256:3")


def test_both_forms_of_the_field() -> None:
    whole = {"command": ["a"], "activeDeadlineSeconds": 60, "backoffLimit": 2}
    assert parsed(["a"]).migrate == Migration(command=("a",))
    assert parsed(whole).migrate == Migration(command=("a",), active_deadline_seconds=60, backoff_limit=2)


def parsed(value: object) -> BackendProject:
    project = parse_project("x.yaml", {"kind": "backend", "migrate": value}, "test")
    assert isinstance(project, BackendProject)
    return project


@pytest.mark.parametrize("value", [[], "a", {"command": []}, {"command": ["a"], "backoffLimit": -1}, [1], {}])
def test_bad_migrations_are_refused(value: object) -> None:
    with pytest.raises(Exception, match=r"x\.yaml:migrate"):
        parsed(value)


def test_a_front_end_has_no_database() -> None:
    with pytest.raises(Exception, match="migrate: unknown key"):
        parse_project("x.yaml", {"kind": "frontend", "migrate": ["a"]}, "test")


def test_an_instruction_carries_failed_jobs() -> None:
    text = Instruction(project="x", failed_jobs=("a",)).model_dump_json()
    assert Instruction.model_validate_json(text).failed_jobs == ("a",)
    with pytest.raises(ValidationError):
        Instruction.model_validate_json('{"project": "x", "failedJobs": "a"}')


def test_a_tag_that_the_history_has_forgotten_does_not_migrate_again() -> None:
    new, old = Release(tag="2"), Release(tag="1")
    note = Migrated(release=new, job="j", before=("1",))
    record = Record(live="main", slots={"main": Slot(release=new)}, history=(new,), migrated=note)
    assert next_migration(record, old, None, COMMAND) is None
    assert record.supersedes(old)


def test_a_tag_that_was_built_anew_migrates_whatever_ran_under_it_before() -> None:
    note = Migrated(release=rel("2"), job="j", before=("latest",))
    old, new = Release(tag="latest", digest="sha256:aaa"), Release(tag="latest", digest="sha256:ccc")
    record = Record(live="main", slots={"main": Slot(release=rel("2"))}, history=(rel("2"), old), migrated=note)
    assert next_migration(record, new, None, COMMAND) == new
    assert next_migration(record, old, None, COMMAND) is None
