"""Names: from a Gitea project to the cluster, the registry and back to the collision check."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.names import (
    NAME_LIMIT,
    InvalidName,
    all_names,
    collisions,
    image_repository,
    kubernetes_name,
    label_value,
    slot_name,
)
from tests.strategies import gitea_names

DNS_LABEL = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?\Z")


@pytest.mark.parametrize(
    ("gitea_name", "name", "repository"),
    [
        ("SJZY.Package.Api", "sjzy-package-api", "back/sjzy.package.api"),
        ("SJZY.Package.Output.Api", "sjzy-package-output-api", "back/sjzy.package.output.api"),
        ("packet_label", "packet-label", "back/packet_label"),
        ("packet", "packet", "back/packet"),
    ],
)
def test_names_of_the_projects(gitea_name: str, name: str, repository: str) -> None:
    assert kubernetes_name(gitea_name) == name
    assert image_repository("backend", gitea_name) == repository


def test_front_ends_live_in_their_own_folder() -> None:
    assert image_repository("frontend", "packet_label") == "front/packet_label"


@given(st.text(max_size=200) | gitea_names)
def test_any_text_becomes_a_dns_label_with_room_for_suffixes_or_is_refused(text: str) -> None:
    try:
        name = kubernetes_name(text)
    except InvalidName:
        return
    assert len(name) <= NAME_LIMIT
    assert "--" not in name
    for derived in all_names(name):
        assert DNS_LABEL.match(derived)
        assert DNS_LABEL.match(f"{derived}-5d4f8c7b9d-x2x4k")


@given(gitea_names)
def test_a_name_of_the_cluster_names_itself(text: str) -> None:
    try:
        name = kubernetes_name(text)
    except InvalidName:
        return
    assert kubernetes_name(name) == name


@given(st.from_regex(r"[a-z][a-z0-9]{60,80}", fullmatch=True))
def test_long_names_with_one_beginning_stay_apart(beginning: str) -> None:
    assert kubernetes_name(beginning + "a") != kubernetes_name(beginning + "b")
    assert not collisions([beginning + "a", beginning + "b"])


@pytest.mark.parametrize("text", ["", "...", "数据", "9lives", "a b", "a/b", "-", "Default", "asset_bridge"])
def test_names_that_can_not_be_used(text: str) -> None:
    with pytest.raises(InvalidName):
        kubernetes_name(text)


def test_collisions_name_both_projects() -> None:
    assert collisions(["packet_label", "packet-label", "other"]) == [("packet-label", "packet_label", "packet-label")]


def test_a_derived_name_collides_too() -> None:
    assert collisions(["packet", "packet_canary"]) == [("packet", "packet_canary", "packet-canary")]
    # The ServiceAccount of the other's job.
    assert collisions(["notes", "release_notes"]) == [("notes", "release_notes", "release-notes")]
    assert collisions(["release_notes"]) == []


@given(st.text(max_size=200))
def test_label_values_are_valid(text: str) -> None:
    assert re.match(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?\Z", label_value(text))
    assert len(label_value(text)) <= 63


def test_slot_names() -> None:
    assert slot_name("packet", "main") == "packet"
    assert slot_name("packet", "blue") == "packet-blue"
