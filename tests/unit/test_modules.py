"""The tools of the embedded cluster share the versions of their Go modules."""

import pytest

from devcluster import modules


def test_tools_agree_on_every_module_that_several_need() -> None:
    assert modules.pending() == {}, "run `make align`"


def test_lower_requirement_is_raised_to_the_highest() -> None:
    required = {"a": {"x": "v1.9.0", "y": "v1.0.0"}, "b": {"x": "v1.10.0"}, "c": {"x": "v1.2.0", "z": "v3.0.0"}}
    assert modules.raises(required, {}) == {"a": {"x": "v1.10.0"}, "c": {"x": "v1.10.0"}}


def test_own_version_neither_raises_nor_is_raised() -> None:
    required = {"a": {"x": "v1.3.0"}, "b": {"x": "v1.1.0"}, "c": {"x": "v1.2.0"}}
    assert modules.raises(required, {"a": ("x",)}) == {"b": {"x": "v1.2.0"}}
    assert modules.raises(required, {"b": ("x",)}) == {"c": {"x": "v1.3.0"}}


def test_agreeing_tools_need_no_change() -> None:
    assert modules.raises({"a": {"x": "v1.0.0"}, "b": {"x": "v1.0.0", "y": "v2.0.0"}}, {}) == {}


@pytest.mark.parametrize(
    ("lower", "higher"),
    [
        ("v1.9.9", "v1.10.0"),
        ("v1.36.12-0.20260120151049-f2248ac996af", "v1.36.12"),
        ("v0.0.0-20180507213350-8e809c8a8645", "v0.0.0-20250808211157-605354379745"),
        ("v1.0.0-alpha.9", "v1.0.0-alpha.10"),
        ("v1.0.0-9", "v1.0.0-alpha"),
        ("v2.0.0+incompatible", "v2.0.1+incompatible"),
    ],
)
def test_precedence_is_that_of_semantic_versions(lower: str, higher: str) -> None:
    assert modules.precedence(lower) < modules.precedence(higher)
