"""A project's configuration in its pods: the ConfigMaps, and where the pod template names them.

Their names hold the hash of their content and are plain text in the template, so another content is another template,
which goes the project's own way of release, and a pod that is started again gets what its release was made with.
"""

import base64
from collections.abc import Mapping, Sequence

from manifests import Manifest
from model.configuration import ConfigFile, Configuration, Content
from model.names import configuration_names
from model.stack import Application

_VOLUME = "config"


def config_maps(application: Application) -> dict[str, Manifest]:
    """Return name → ``data`` and ``binaryData`` of the ConfigMaps of one release; none when it has no configuration."""
    content = application.content
    if content is None:
        return {}
    files, variables = configuration_names(application.name, content.ref.digest)
    found = {files: _data(content.files)} if content.files else {}
    return found | ({variables: {"data": dict(content.env)}} if content.env else {})


def put_into(application: Application, pod: Manifest) -> None:
    """Give a rendered pod's own container its files and environment variables."""
    content, wanted = application.content, application.project.config
    if content is None or wanted is None:
        return
    _, variables = configuration_names(application.name, content.ref.digest)
    (own,) = pod["containers"]
    if content.files or content.secret_files:
        _mount(wanted, application.name, content, own, pod)
    sources = [{"configMapRef": {"name": variables}}] if content.env else []
    if content.secret_env:
        sources.append({"secretRef": {"name": configuration_names(application.name, content.ref.secrets or "")[1]}})
    if sources:
        own["envFrom"] = sources


def _mount(wanted: Configuration, name: str, content: Content, own: Manifest, pod: Manifest) -> None:
    # An earlier release may lack a file that the project file asks for by now; a volume that names it would hold up
    # its pods for ever.
    plain = [each for each in wanted.files if each.key in content.files]
    secret = [each for each in wanted.secret_files if each.key in content.secret_files]
    files = [*plain, *secret]
    if not files:
        return
    from_map = {"name": configuration_names(name, content.ref.digest)[0], "items": _items(plain)}
    if secret:
        own_name = configuration_names(name, content.ref.secrets or "")[0]
        sources = [{"configMap": from_map}] if plain else []
        sources.append({"secret": {"name": own_name, "items": _items(secret)}})
        pod["volumes"].append({"name": _VOLUME, "projected": {"sources": sources}})
    else:
        pod["volumes"].append({"name": _VOLUME, "configMap": from_map})
    mounts: list[Manifest] = own["volumeMounts"]
    if any(each.path is None for each in files):
        mounts.append({"name": _VOLUME, "mountPath": wanted.mount, "readOnly": True})
    mounts += [
        {"name": _VOLUME, "mountPath": each.path, "subPath": each.file, "readOnly": True} for each in files if each.path
    ]


def _items(files: Sequence[ConfigFile]) -> list[Manifest]:
    return [{"key": each.key, "path": each.file} for each in files]


def _data(files: Mapping[str, bytes]) -> Manifest:
    text: dict[str, str] = {}
    binary: dict[str, str] = {}
    for key, content in sorted(files.items()):
        decoded = _decoded(content)
        if decoded is None:
            binary[key] = base64.b64encode(content).decode()
        else:
            text[key] = decoded
    return {**({"data": text} if text else {}), **({"binaryData": binary} if binary else {})}


def _decoded(content: bytes) -> str | None:
    """Return bytes as text where they are plain UTF-8; ``data`` of a ConfigMap holds nothing else."""
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else text
