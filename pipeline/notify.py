"""The stage ``notify``: how a build ended, to a chat group's robot of DingTalk or WeCom.

Both take a JSON body by POST, and answer 200 with an ``errcode`` that is 0 when the message was taken:
https://open.dingtalk.com/document/orgapp/custom-robots-send-group-messages and
https://developer.work.weixin.qq.com/document/path/91770.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import time
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any, Literal

import httpx2
import typer
from pydantic import BaseModel, ValidationError

from pipeline import keys, state
from pipeline.arguments import HERE, Project, Workspace
from pipeline.errors import EXIT_CODES, PipelineError, RefusedError

URL = "PIPELINE_NOTIFY_URL"
"""Variable with the robot's address. It holds the robot's key, so it is a secret."""
SECRET = "PIPELINE_NOTIFY_SECRET"  # noqa: S105 - a variable's name
"""Variable with the key that signs messages to a DingTalk robot whose security setting is "加签"."""
HELP = f"""Tell a DingTalk or WeCom group how PROJECT's build ended.

\b
The robot's address comes by $PIPELINE_NOTIFY_URL (or …_FILE); without it nothing is sent. A robot that does not answer
is a warning, not a failed build.

\b
Example:
  python -m pipeline notify SJZY.Package.Api --result SUCCESS

\b
{EXIT_CODES}
"""

Format = Literal["dingtalk", "wecom"]
_HOSTS: Mapping[str, Format] = {"oapi.dingtalk.com": "dingtalk", "qyapi.weixin.qq.com": "wecom"}
_RESULTS: Mapping[str, str] = {
    "SUCCESS": "成功",
    "FAILURE": "失败",
    "UNSTABLE": "不稳定",
    "ABORTED": "已中止",
    "NOT_BUILT": "未构建",
}
_TIMEOUT_SECONDS = 10.0


class Answer(BaseModel):
    """What both robots answer."""

    errcode: int
    errmsg: str = ""


def notify(  # noqa: PLR0913 - options of a command line
    project: Project,
    *,
    result: Annotated[str, typer.Option("--result", help="SUCCESS, FAILURE, ABORTED, as Jenkins has it.")],
    stack: Annotated[
        str, typer.Option("--stack", "-s", envvar=["STACK", "PACKAGE_PLATFORM_STACK"], help="Stack it was for.")
    ] = "",
    tag: Annotated[str, typer.Option("--tag", envvar="TAG", help="Tag that was redeployed, if any.")] = "",
    robot: Annotated[
        Format | None, typer.Option("--robot", help="By default what the address says.", show_default=False)
    ] = None,
    workspace: Workspace = HERE,
) -> None:
    """Send it; what goes wrong is a warning."""
    if not (os.environ.get(URL) or os.environ.get(f"{URL}_FILE")):
        typer.echo(f"nobody is told: ${URL} is not set")
        return
    try:
        url = keys.secret(URL, "the address of the group's robot")
        markdown = text(project, result, stack, tag or _built(workspace, project), os.environ.get("BUILD_URL", ""))
        send(url, robot or robot_of(url), f"{project} {_RESULTS.get(result, result)}", markdown)
    except PipelineError as error:
        for line in error.lines:
            typer.echo(f"warning: {line}", err=True)


def text(project: str, result: str, stack: str, tag: str, build_url: str) -> str:
    """Return the message, in the Markdown that both robots show. Pure."""
    lines = [f"### {project} 发布{_RESULTS.get(result, result)}"]
    lines += [f"- 环境:{stack}"] * bool(stack)
    lines += [f"- 版本:{tag}"] * bool(tag)
    lines += [f"- [构建日志]({build_url}console)"] * bool(build_url)
    return "\n".join(lines)


def robot_of(url: str) -> Format:
    """Return whose robot an address belongs to. Pure.

    Raises:
        RefusedError: If that can't be told; the address itself is a secret, and is not in the message.
    """
    try:
        host = httpx2.URL(url).host
    except httpx2.InvalidURL:
        raise RefusedError(f"${URL}: is no address: give it the one that the group's robot shows, https://…") from None
    if host not in _HOSTS:
        raise RefusedError(f"${URL}: its host is none of {', '.join(_HOSTS)}: say --robot dingtalk or --robot wecom")
    return _HOSTS[host]


def body(robot: Format, title: str, markdown: str) -> Mapping[str, Any]:
    """Return a message as the robot takes it. Pure."""
    if robot == "wecom":
        return {"msgtype": "markdown", "markdown": {"content": markdown}}
    return {"msgtype": "markdown", "markdown": {"title": title, "text": markdown}}


def signature(secret: str, milliseconds: int) -> str:
    """Return DingTalk's signature of a moment: HMAC-SHA256 of both, a line each, in Base64. Pure."""
    signed = hmac.new(secret.encode(), f"{milliseconds}\n{secret}".encode(), hashlib.sha256)
    return base64.b64encode(signed.digest()).decode()


def send(url: str, robot: Format, title: str, markdown: str) -> None:
    """Send a message.

    Raises:
        PipelineError: If the robot does not answer, or did not take it.
    """
    query: dict[str, str] = {}
    if robot == "dingtalk" and (os.environ.get(SECRET) or os.environ.get(f"{SECRET}_FILE")):
        now = time.time_ns() // 1_000_000
        query = {"timestamp": str(now), "sign": signature(keys.secret(SECRET, "the robot's signing key"), now)}
    try:
        target = httpx2.URL(url).copy_merge_params(query)
        answer = httpx2.post(target, json=body(robot, title, markdown), timeout=_TIMEOUT_SECONDS)
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        # The error's own text may hold the address.
        raise PipelineError(f"the {robot} robot was not reached: {type(error).__name__}") from None
    if answer.status_code != HTTPStatus.OK:
        raise PipelineError(f"the {robot} robot answers {answer.status_code}")
    try:
        told = Answer.model_validate_json(answer.content)
    except ValidationError:
        raise PipelineError(f"what answers at ${URL} is no {robot} robot") from None
    if told.errcode:
        raise PipelineError(f"the {robot} robot did not take it: {told.errcode} {told.errmsg}")


def _built(workspace: Path, project: str) -> str:
    try:
        return state.load(workspace, project).tag or ""
    except RefusedError:
        return ""
