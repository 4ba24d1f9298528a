"""The sample config repository: the same commit everywhere, with files for every project."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

from config_repository import ConfigRepository, read
from devcluster.configuration import ensure_repository
from model.configuration import Configuration
from tests.conftest import committed_stack

CONFIG: dict[str, Any] = {
    "backend": {"mount": "/app/config", "files": ["appsettings.json"], "env": ".env"},
    "frontend": {
        "files": [
            {"file": "env.js", "path": "/usr/share/nginx/html/env.js"},
            {"file": "nginx.conf", "path": "/etc/nginx/nginx.conf"},
        ]
    },
}


def test_its_commit_is_the_same_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = ConfigRepository(ensure_repository(tmp_path / "one" / "config")).commit("")
    monkeypatch.setenv("TZ", "Asia/Shanghai")
    monkeypatch.setenv("GIT_AUTHOR_NAME", "somebody")
    second = ConfigRepository(ensure_repository(tmp_path / "two")).commit("")
    assert first == second


def test_what_a_person_committed_there_stays(tmp_path: Path) -> None:
    folder = ensure_repository(tmp_path / "config")
    (folder / "test" / "packet" / "env.js").unlink()
    identity = ("-c", "user.name=a", "-c", "user.email=a@b")
    subprocess.run(["git", "-C", folder, *identity, "commit", "-qam", "mine"], check=True)
    mine = ConfigRepository(folder).commit("")
    assert ConfigRepository(ensure_repository(folder)).commit("") == mine


@pytest.mark.parametrize("stack", ["test", "uat"])
def test_every_project_finds_its_files(tmp_path: Path, stack: str) -> None:
    repository = ConfigRepository(ensure_repository(tmp_path / "config"))
    applications = committed_stack(stack).applications
    assert len(applications) == 8
    for application in applications:
        wanted = Configuration.model_validate(CONFIG[application.project.kind], strict=False)
        project = application.project.model_copy(update={"config": wanted})
        content = read(repository, application.model_copy(update={"project": project}), stack, "", "config")
        assert content is not None
        assert len(content.files) == len(wanted.files)
        own = content.files.get("appsettings.json") or content.files["env.js"]
        assert stack.encode() in own
