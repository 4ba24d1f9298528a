"""The real sops: every form of file, and who gets access later. No cluster is needed."""

import os
import subprocess
from pathlib import Path

import pytest

from devcluster import environment, toolchain
from devcluster.instance import Instance
from devcluster.progress import Progress
from model.sops import encrypted_values
from sops import SopsError, decrypt

ROOT = Path(__file__).parents[2]
FILES = {
    "x.json": '{"a": "planted"}',
    "x.yaml": "a: planted\n",
    "x.env": "A=planted\n",
    "x.ini": "[s]\na = planted\n",
    "x.pem": "planted\n",
}


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Files of three keys with who they are."""
    toolchain.ensure(["sops", "age-keygen"], Progress(quiet=True))
    path = [*environment.path_entries(Instance(0, ROOT)), os.environ["PATH"]]
    monkeypatch.setenv("PATH", os.pathsep.join(path))
    found: dict[str, str] = {}
    for name in ("one", "other", "stranger"):
        file = str(tmp_path / name)
        run("age-keygen", "-o", file)
        found[file] = run("age-keygen", "-y", file).strip()
    return found


def run(*command: str, stdin: str = "", cwd: Path | None = None) -> str:
    done = subprocess.run(command, input=stdin, cwd=cwd, capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.parametrize("file", list(FILES))
def test_every_form_of_file(file: str, keys: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (one, own), (other, another), (stranger, _) = keys.items()
    monkeypatch.setenv("SOPS_AGE_KEY_FILE", one)
    path = tmp_path / file
    path.write_text(run("sops", "encrypt", "--age", own, "--filename-override", file, stdin=FILES[file]))
    before = path.read_bytes()
    values = encrypted_values(file, before)
    assert values is not None
    assert "planted" in decrypt(file, before).decode()
    (tmp_path / ".sops.yaml").write_text(f'creation_rules: [{{age: "{own},{another}"}}]\n')
    run("sops", "updatekeys", "--yes", file, cwd=tmp_path)
    after = path.read_bytes()
    assert after != before
    assert encrypted_values(file, after) == values, "access for one more is no other content"
    monkeypatch.setenv("SOPS_AGE_KEY_FILE", other)
    assert decrypt(file, after) == FILES[file].encode() or "planted" in decrypt(file, after).decode()
    monkeypatch.setenv("SOPS_AGE_KEY_FILE", stranger)
    with pytest.raises(SopsError, match="is encrypted for others"):
        decrypt(file, after)
