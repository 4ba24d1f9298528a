"""``python -m pipeline notify``, against a local receiver of DingTalk's and WeCom's formats."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from typer.testing import CliRunner

from pipeline import notify, state
from pipeline.__main__ import app
from tests.unit.stand_in import Answer, Asked, served

TAKEN = '{"errcode":0,"errmsg":"ok"}'


def run(*words: str, workspace: Path) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["notify", "packet", "--workspace", str(workspace), *words])
    return result.exit_code, result.output


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PIPELINE_NOTIFY_URL", "PIPELINE_NOTIFY_SECRET", "TAG", "STACK", "PACKAGE_PLATFORM_STACK"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(f"{name}_FILE", raising=False)
    monkeypatch.setenv("BUILD_URL", "https://jenkins.example.com/job/packet/7/")


def received(monkeypatch: pytest.MonkeyPatch, workspace: Path, answer: Answer, *words: str) -> tuple[list[Asked], str]:
    asked: list[Asked] = []

    def taken(request: Asked) -> Answer:
        asked.append(request)
        return answer

    with served(taken) as url:
        monkeypatch.setenv("PIPELINE_NOTIFY_URL", f"{url}/robot/send?access_token=hidden-key")
        code, said = run(*words, workspace=workspace)
    assert code == 0
    assert "hidden-key" not in said
    return asked, said


def test_dingtalk_gets_a_signed_markdown_message(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    state.save(tmp_path, state.Build(project="packet", commit="4f2a9c1" * 5 + "01234", tag="2022-08-03-18-54"))
    monkeypatch.setenv("PIPELINE_NOTIFY_SECRET", "SECabc")
    (asked,), said = received(
        monkeypatch, tmp_path, Answer(body=TAKEN), "--result", "FAILURE", "--robot", "dingtalk", "--stack", "test"
    )
    query = parse_qs(urlsplit(asked.path).query)
    assert query["access_token"] == ["hidden-key"]
    assert query["sign"] == [notify.signature("SECabc", int(query["timestamp"][0]))]
    message = json.loads(asked.body)
    assert message["msgtype"] == "markdown"
    assert message["markdown"]["title"] == "packet 失败"
    assert message["markdown"]["text"].splitlines() == [
        "### packet 发布失败",
        "- 环境:test",
        "- 版本:2022-08-03-18-54",
        "- [构建日志](https://jenkins.example.com/job/packet/7/console)",
    ]
    assert not said


def test_wecom_gets_its_own_form_unsigned(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (asked,), _ = received(
        monkeypatch, tmp_path, Answer(body=TAKEN), "--result", "SUCCESS", "--robot", "wecom", "--tag", "t1"
    )
    assert list(parse_qs(urlsplit(asked.path).query)) == ["access_token"]
    message = json.loads(asked.body)
    assert set(message) == {"msgtype", "markdown"}
    assert message["markdown"]["content"].startswith("### packet 发布成功\n- 版本:t1")


@pytest.mark.parametrize(
    ("answer", "warning"),
    [
        (Answer(500), "the wecom robot answers 500"),
        (Answer(body='{"errcode":93000,"errmsg":"invalid webhook url"}'), "did not take it: 93000 invalid webhook url"),
        (Answer(body="<html>"), "is no wecom robot"),
    ],
)
def test_a_robot_that_fails_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, answer: Answer, warning: str
) -> None:
    asked, said = received(monkeypatch, tmp_path, answer, "--result", "SUCCESS", "--robot", "wecom")
    assert len(asked) == 1
    assert said.startswith("warning: ")
    assert warning in said


def test_nobody_there_and_nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert "is not set" in run("--result", "SUCCESS", workspace=tmp_path)[1]
    monkeypatch.setenv("PIPELINE_NOTIFY_URL", "http://127.0.0.1:9/hidden-key")
    code, said = run("--result", "SUCCESS", "--robot", "wecom", workspace=tmp_path)
    assert (code, said) == (0, "warning: the wecom robot was not reached: ConnectError\n")
    code, said = run("--result", "SUCCESS", workspace=tmp_path)
    assert code == 0
    assert "say --robot" in said
    assert "hidden-key" not in said


@pytest.mark.parametrize("robot", [(), ("--robot", "wecom")])
@pytest.mark.parametrize("address", ["https://[hidden-key", "https://qyapi.weixin.qq.com:hidden-key/"])
def test_an_address_that_is_none_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, address: str, robot: tuple[str, ...]
) -> None:
    monkeypatch.setenv("PIPELINE_NOTIFY_URL", address)
    code, said = run("--result", "SUCCESS", *robot, workspace=tmp_path)
    assert code == 0
    assert said.startswith("warning: ")
    assert "hidden-key" not in said


def test_the_robot_is_told_by_its_address() -> None:
    assert notify.robot_of("https://oapi.dingtalk.com/robot/send?access_token=x") == "dingtalk"
    assert notify.robot_of("https://qyapi.weixin.qq.com/cgi-bin/webhook/send?key=x") == "wecom"


def test_the_stack_comes_by_the_jobs_parameter_or_by_the_variable_of_all_commands(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PACKAGE_PLATFORM_STACK", "uat")
    for variables, stack in (({}, "uat"), ({"STACK": "prod"}, "prod")):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        (asked,), _ = received(monkeypatch, tmp_path, Answer(body=TAKEN), "--result", "SUCCESS", "--robot", "wecom")
        assert f"- 环境:{stack}" in json.loads(asked.body)["markdown"]["content"].splitlines()
