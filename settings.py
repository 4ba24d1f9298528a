"""The edge where input comes in: Pulumi's config, the project files, the registry, the records of what runs.

All of it is read here, checked once into frozen models and passed down; nothing below reads anything itself.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pulumi
from pulumi.runtime.config import CONFIG, get_config_env, get_config_secret_keys_env
from pydantic import ValidationError

from config_repository import State, configured
from model.ack import Connection
from model.fields import plain_mapping
from model.names import secrets_name
from model.platform import namespace_problems
from model.problems import Problem, SettingsError, from_validation
from model.release import (
    INSTRUCTION_VARIABLE,
    InCluster,
    Instruction,
    autoscaled_of,
    bridges_of,
    failed_jobs_of,
    namespaces_of,
    owners_of,
    pods_of,
    records_of,
    repositories_of,
)
from model.secrets import NAMES as SECRET_NAMES
from model.secrets import plain_secrets, stored_secret
from model.stack import (
    NAMESPACE,
    UNREADABLE,
    Application,
    Stack,
    instructed,
    needs_claims,
    parse_stack,
    with_claims,
    with_records,
    without_a_second,
    without_going_back,
    without_renames,
)
from model.storage import claims_of
from model.yaml_text import parse_yaml

_TEXTS = ("secretKey",)  # a text of digits is no number
_STATE_SECONDS = 20.0
_STATE_PAUSE_SECONDS = 0.2
PROGRAM = Path(__file__).resolve().parent


def load_stack(program: Path = PROGRAM) -> Stack:
    """Read and check everything that the selected stack consists of.

    Args:
        program: Folder of the program, with ``projects/`` and the stack files.

    Raises:
        SettingsError: With every problem of all files.
    """
    name = pulumi.get_stack()
    file = f"Pulumi.{name}.yaml"
    refuse_plain_secrets(program, file, name)
    stack = build_stack(program, file, name, _stack_config())
    instruction = read_instruction(os.environ)
    # Read once, and for a single project only when it is needed: that takes a second in a large stack.
    state = functools.cache(read_resources)
    if instruction:
        stack = instructed(stack, instruction)
    else:
        found = InCluster(
            failed_jobs=failed_jobs_of(state()),
            pods=pods_of(state()),
            bridges=bridges_of(state()),
            autoscaled=autoscaled_of(state()),
            repositories=repositories_of(state()),
        )
        made = namespaces_of(state())
        lost = namespace_problems(file, f"{NAMESPACE}:", stack.environment, platform=stack.platform, made=made)
        if lost:
            raise SettingsError(lost)
        stack = without_renames(with_records(stack, records_of(state()), found), owners_of(state()))
        stack = without_going_back(stack, file)
    if needs_claims(stack):
        stack = with_claims(stack, claims_of(state()))
    stack = without_a_second(stack)
    stack = with_stored_secrets(configured(stack, program, file, state), file, state)
    return resolve(stack, file)


def refuse_plain_secrets(program: Path, file: str, name: str) -> None:
    """Refuse a stack in which a secret is not encrypted, or is where everything is shown.

    Args:
        program: Folder of the program.
        file: Name of the stack file, for errors.
        name: Name of the stack.

    Raises:
        SettingsError: With a line for each.
    """
    secret = {key.removeprefix(f"{NAMESPACE}:") for key in get_config_secret_keys_env()}
    problems = [
        Problem(file, f"{NAMESPACE}:{key}", f"is encrypted, and only {', '.join(SECRET_NAMES)} are treated as secrets")
        for key in sorted(secret.difference(SECRET_NAMES))
        if ":" not in key
    ]
    with contextlib.suppress(OSError, SettingsError, KeyError, AttributeError, TypeError, UnicodeDecodeError):
        problems += plain_secrets(file, read_stack_file(program, name))
    if problems:
        raise SettingsError(problems)


def with_stored_secrets(stack: Stack, file: str, state: State) -> Stack:
    """Return the stack, in which every project has the secrets that its slots need, also those that were replaced.

    Args:
        stack: With the records of what runs.
        file: Name of the stack file, for errors.
        state: Asked where a slot runs with other secrets than the stack file has.

    Raises:
        SettingsError: With a line for each project whose pods would be made without theirs.
    """
    problems: list[Problem] = []

    def completed(application: Application) -> Application:
        slots = application.record.slots.values() if application.record else ()
        values = dict(application.secret_values)
        for digest in {slot.secrets for slot in slots if slot.secrets} - values.keys():
            found = stored_secret(state(), secrets_name(application.name, digest))
            if found is not None:
                values[digest] = found
            elif application.action == "restore":
                message = f"the secrets with which it runs ({digest}) are not in the stack's state: `pulumi refresh`"
                problems.append(Problem(file, f"{NAMESPACE}:secrets.{application.gitea_name}", message))
        return application.model_copy(update={"secret_values": values})

    completed_stack = stack.model_copy(update={"applications": tuple(map(completed, stack.applications))})
    if problems:
        raise SettingsError(problems)
    return completed_stack


def read_instruction(variables: Mapping[str, str]) -> Instruction | None:
    """Return what the command ``release`` asks for; None in a plain run of ``pulumi``.

    Args:
        variables: The environment variables of this process.

    Raises:
        SettingsError: If it is not readable, which must not end as a plain run: that would declare everything.
    """
    text = variables.get(INSTRUCTION_VARIABLE)
    if not text:
        return None
    try:
        return Instruction.model_validate_json(text)
    except ValidationError as error:
        raise SettingsError(from_validation(f"${INSTRUCTION_VARIABLE}", error)) from None


def build_stack(program: Path, file: str, name: str, data: Mapping[str, Any]) -> Stack:
    """Check a stack's config together with the project files; asks no one outside.

    Args:
        program: Folder of the program, with ``projects/`` and the stack files.
        file: Name of the stack file, for errors.
        name: Name of the stack.
        data: Our keys of the stack file, without their namespace.

    Raises:
        SettingsError: With every problem of all files.
    """
    problems: list[Problem] = []
    files = read_projects(program, problems)
    try:
        stack = parse_stack(file, name, data, files, environment_names(program, name))
    except SettingsError as error:
        problems += error.problems
        stack = None
    if problems or stack is None:
        raise SettingsError(problems)
    return stack


def read_projects(program: Path, problems: list[Problem]) -> dict[str, object]:
    """Return project file → content, ``UNREADABLE`` and a problem more for each that doesn't parse."""
    files: dict[str, object] = {}
    for path in sorted((program / "projects").glob("*.y*ml")):
        if path.name.startswith("."):
            continue  # an editor's own: Emacs' lock of a file that is open is a link to nowhere
        file = f"projects/{path.name}"
        if path.suffix != ".yaml":
            problems.append(Problem(file, "", "project files end in .yaml: rename it"))
            continue
        files[file] = UNREADABLE
        try:
            files[file] = parse_yaml(file, path.read_text(encoding="utf-8"))
        except SettingsError as error:
            problems += error.problems
        except UnicodeDecodeError as error:
            problems.append(Problem(file, "", f"is not UTF-8 text: {error.reason} at byte {error.start}"))
        except OSError as error:
            problems.append(Problem(file, "", f"can't be read: {error.strerror}"))
    return files


def read_stack_file(program: Path, stack: str) -> dict[str, Any]:
    """Return our keys of a stack file, without their namespace, as Pulumi would hand them to the program."""
    file = f"Pulumi.{stack}.yaml"
    content = cast("Mapping[str, Mapping[str, Any]]", parse_yaml(file, (program / file).read_text(encoding="utf-8")))
    prefix = f"{NAMESPACE}:"
    return {key.removeprefix(prefix): value for key, value in content["config"].items() if key.startswith(prefix)}


def environment_names(program: Path, current: str) -> list[str]:
    """Return the environments that the stack files beside the program speak of."""
    names = {current}  # an environment is called as its stack unless the file says otherwise
    for path in program.glob("Pulumi.*.yaml"):
        stack = path.name.removeprefix("Pulumi.").removesuffix(".yaml")
        try:
            environment = read_stack_file(program, stack).get("environment", {})
            name = environment.get("name", stack)
        except (SettingsError, AttributeError, KeyError, TypeError, OSError, UnicodeDecodeError):
            names.add(stack)  # another stack's broken file is not this one's problem
            continue
        names.add(name if isinstance(name, str) else stack)
    return sorted(names)


def resolve(stack: Stack, file: str) -> Stack:
    """Return the stack with every tag's digest, as the registry tells it where it is not known already.

    Raises:
        SettingsError: With a line for each image that is missing or can't be asked for.
    """
    if not stack.environment.registry.pin_digests:
        return stack
    host = stack.environment.registry.host
    asked = {
        (each.gitea_name, field): (image.repository.removeprefix(f"{host}/"), image.tag)
        for each in stack.deployed
        for field, image in each.images_to_ask().items()
    }
    if not asked:
        return stack
    # Only a run that asks pays for this import: `release` has asked already.
    from registry import ImageMissingError, Registry, RegistryError  # noqa: PLC0415

    digests = Registry(host).digests(set(asked.values()))
    problems: list[Problem] = []

    def digest(application: Application, field: str) -> str | None:
        answer = digests[asked[application.gitea_name, field]]
        if not isinstance(answer, RegistryError):
            return answer
        missing = isinstance(answer, ImageMissingError)
        where = f"{field}.{application.gitea_name}" if missing else "environment.registry"
        problems.append(Problem(file, f"{NAMESPACE}:{where}", str(answer)))
        return None

    def pinned(application: Application) -> Application:
        found = {field: digest(application, field) for field in application.images_to_ask()}
        return application.with_digests(found)

    resolved = tuple(pinned(each) for each in stack.applications)
    if problems:
        raise SettingsError(problems)
    return stack.model_copy(update={"applications": resolved})


def read_resources() -> dict[str, Any]:
    """Return the stack's resources as the last update left them: URN → ``{type, outputs}``.

    A partly failed or targeted update is seen as it ended; stack outputs would stay old when any sibling fails.
    """
    answer = _ask_own_state("pulumi:pulumi:readStackResourceOutputs", "stackName")
    return plain_mapping(answer.get("outputs")) or {}


def read_outputs() -> dict[str, Any]:
    """Return the stack's outputs as the last update left them; secret ones are marked as such again."""
    outputs, secret = _own_outputs()
    return {name: pulumi.Output.secret(value) if name in secret else value for name, value in outputs.items()}


def read_connection() -> Connection | None:
    """Return how the stack's own cluster was reached by the last update; None when there was none."""
    outputs, _ = _own_outputs()
    cluster = plain_mapping(outputs.get("cluster")) or {}
    known = {
        **{key: cluster.get(key) for key in ("id", "endpoint", "expires")},
        "kubeconfig": outputs.get("kubeconfig"),
    }
    return Connection.model_validate(known) if all(isinstance(each, str) for each in known.values()) else None


def _own_outputs() -> tuple[dict[str, Any], set[str]]:
    """Return the stack's outputs as the last update left them, and which of them are secret."""
    answer = _ask_own_state("pulumi:pulumi:readStackOutputs", "name")
    return plain_mapping(answer.get("outputs")) or {}, set(answer.get("secretOutputNames", []))


def _ask_own_state(token: str, parameter: str) -> Mapping[str, Any]:
    """Ask the engine about this stack's own state.

    The engine may be writing that file at the same moment (it notes the root resource when the program starts), and the
    file backend does not write it in one step: what can't be read is asked for again.

    Raises:
        Exception: The engine's own, if the state is still not readable after ``_STATE_SECONDS``.
    """
    own = f"{pulumi.get_organization()}/{pulumi.get_project()}/{pulumi.get_stack()}"
    deadline = time.monotonic() + _STATE_SECONDS
    while True:
        try:
            answer = pulumi.runtime.invoke(token, {parameter: own})
        except Exception:  # the engine's errors have no type of their own
            if time.monotonic() > deadline:
                raise
            time.sleep(_STATE_PAUSE_SECONDS)
        else:
            return cast("Mapping[str, Any]", answer.value or {})


def _stack_config() -> dict[str, Any]:
    """Return all our keys of the selected stack, also those that no one knows, so that they can be refused."""
    prefix = f"{NAMESPACE}:"
    everything = {**get_config_env(), **CONFIG.get()}
    found = {key.removeprefix(prefix): text for key, text in everything.items() if key.startswith(prefix)}
    return {key: text if key in _TEXTS else _value(text) for key, text in found.items()}


def _value(text: str) -> Any:
    """Objects, numbers and truth values arrive as JSON; plain text as itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text
