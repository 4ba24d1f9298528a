"""The record of what runs."""

from model.plan import Wanted, plan
from model.release import KEPT_RELEASES, RECORD_ANNOTATION, Record, Release, Slot, parse_record, records_of

FIRST, SECOND = Release(tag="1", digest="sha256:aa"), Release(tag="2", digest="sha256:bb")


def rolled(previous: Record | None, wanted: Release) -> Record:
    return plan(previous, Wanted(slot=Slot(release=wanted, revision=wanted.tag)), "rolling").record


def test_a_first_release() -> None:
    record = rolled(None, FIRST)
    assert record.release == FIRST
    assert record.history == (FIRST,)


def test_the_same_release_again_changes_nothing() -> None:
    record = rolled(rolled(None, FIRST), SECOND)
    assert rolled(record, SECOND) == record


def test_a_rollback_moves_the_release_to_the_front() -> None:
    record = rolled(rolled(rolled(None, FIRST), SECOND), FIRST)
    assert record.release == FIRST
    assert record.history == (FIRST, SECOND)


def test_the_history_is_bounded() -> None:
    record: Record | None = None
    for number in range(KEPT_RELEASES * 3):
        record = rolled(record, Release(tag=str(number)))
    assert record is not None
    assert [release.tag for release in record.history] == [str(29 - number) for number in range(KEPT_RELEASES)]


def test_what_was_replaced_is_known() -> None:
    record = rolled(rolled(None, FIRST), SECOND)
    assert record.supersedes(FIRST)
    assert not record.supersedes(SECOND)
    assert not record.supersedes(Release(tag="3"))
    assert not record.supersedes(SECOND.model_copy(update={"digest": "sha256:cc"})), "the tag was pushed anew"


def test_the_annotation_reads_back() -> None:
    record = rolled(rolled(None, FIRST), SECOND)
    assert parse_record(record.to_annotation()) == record


def test_a_damaged_annotation_is_no_record() -> None:
    assert parse_record("{") is None
    assert parse_record('{"live": "purple"}') is None
    assert parse_record('{"live": "main", "slots": {}, "history": []}') is None, "its live slot is missing"


def test_records_are_found_among_the_resources_of_a_stack() -> None:
    record = rolled(None, FIRST)

    def service(name: str, annotations: dict[str, str] | None) -> dict[str, object]:
        outputs = {"metadata": {"name": name, "annotations": annotations}}
        return {"type": "kubernetes:core/v1:Service", "outputs": outputs}

    resources: dict[str, object] = {
        "urn:1": service("packet", {RECORD_ANNOTATION: record.to_annotation()}),
        "urn:2": service("plain", None),
        "urn:3": {"type": "kubernetes:apps/v1:Deployment", "outputs": {}},
        "urn:4": {"type": "pulumi:pulumi:Stack", "outputs": None},
    }
    assert records_of(resources) == {"packet": record}
