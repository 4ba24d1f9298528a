"""YAML without its traps."""

import pytest

from model.problems import SettingsError
from model.yaml_text import parse_yaml


def test_words_stay_words() -> None:
    text = "a: 2022-07-15\nb: on\nc: no\nd: 2022-07-15-17-01\ne: 1:30\nf: 0x10"
    expected = {"a": "2022-07-15", "b": "on", "c": "no", "d": "2022-07-15-17-01", "e": "1:30", "f": "0x10"}
    assert parse_yaml("f.yaml", text) == expected


def test_scalars() -> None:
    assert parse_yaml("f.yaml", "{a: 1, b: true, c: 1.5, d: null, e: , f: [x], g: 017}") == {
        "a": 1, "b": True, "c": 1.5, "d": None, "e": None, "f": ["x"], "g": 17,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: 1\nb: 2\na: 3\n", "f.yaml:line 3: not readable as YAML: the key 'a' is there twice, first in line 1"),
        ("a: {b: 1, b: 2}", "f.yaml:line 1: not readable as YAML: the key 'b' is there twice, first in line 1"),
        ("a: [1\nb: 2", "f.yaml:line 2: not readable as YAML: expected ',' or ']', but got ':'"),
        ("a:\n\t- b", "f.yaml:line 2: not readable as YAML: found character '\\t' that cannot start any token"),
        ("a: *nowhere", "f.yaml:line 1: not readable as YAML: found undefined alias 'nowhere'"),
        ("a: !python/object:os.system x", None),
    ],
)
def test_what_can_not_be_read_is_one_line_with_the_place(text: str, problem: str | None) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_yaml("f.yaml", text)
    lines = str(caught.value).splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("f.yaml:")
    if problem:
        assert lines[0] == problem


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("env: &a {x: *a}", "line 1: not readable as YAML: the alias *a is inside of what it stands for"),
        ("a: !!timestamp 2022-01-01", "could not determine a constructor for the tag"),
        ("a: !!binary aGVsbG8=", "could not determine a constructor for the tag"),
        ("a: !!set {A, B}", "could not determine a constructor for the tag"),
        ("a: 1\nb: !!int two", "line 2: not readable as YAML: 'two' can't be read as int"),
        ("a: !!bool maybe", "'maybe' can't be read as bool"),
        ("a: !!float much", "'much' can't be read as float"),
        (f"a: {'7' * 5000}", "can't be read as int"),
        (f"a: {'[' * 3000}", "is nested too deeply"),
    ],
)
def test_what_has_no_end_or_no_form_in_json_is_refused_by_name(text: str, said: str) -> None:
    with pytest.raises(SettingsError) as error:
        parse_yaml("projects/x.yaml", text)
    (line,) = str(error.value).splitlines()
    assert line.startswith("projects/x.yaml:")
    assert said in line


def test_aliases_that_end_are_read() -> None:
    assert parse_yaml("x.yaml", "a: &one {b: [1]}\nc: *one\nd: [*one]") == {
        "a": {"b": [1]},
        "c": {"b": [1]},
        "d": [{"b": [1]}],
    }
