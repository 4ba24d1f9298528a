"""A canary that goes up by itself, against a `pulumi` and proxies that do as they are told."""

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

import release.commands
from model.release import Record, Release, Slot
from model.stack import Application
from registry import Registry, RegistryError
from release import steps
from release.arguments import seconds, share, weights
from release.change import Changed, Changer, Wish
from release.cluster import Cluster
from release.command_line import app
from release.errors import BROKEN, DONE, FAILED, REFUSED, InterruptedRunError
from tests.unit.fake_stack import BEGUN, NAME, PROJECT, STEP, FakeStack, deployment, proxy, record

PROJECT_FILE = "kind: backend\nstrategy: canary\nroutes: [{host: api}]\n"
SERVICE = f"package-test-{NAME}-{NAME}-http"
OPTIONS = ("--pause=60ms", "--max-error-rate=10%", "--max-p99=500ms", "--min-requests=5")


class Traffic:
    """What the proxies count: so many more requests to each version each time that they are asked.

    Args:
        canary: Requests to the canary, each time.
        errors: How many of them fail, each time.
        slow: How many of them take a second, each time.
    """

    def __init__(self, canary: int = 10, errors: int = 0, slow: int = 0) -> None:
        self.canary, self.errors, self.slow = canary, errors, slow
        self.asked = 0

    def __call__(self, _: str) -> str:
        self.asked += 1
        canary, errors, slow = (self.asked * each for each in (self.canary, self.errors, self.slow))
        stable = self.asked * 90
        lines = ["process_start_time_seconds 5"]
        for service, good, bad, late in ((SERVICE, stable, 0, 0), (f"{SERVICE}-canary", canary - errors, errors, slow)):
            name = f'service="{service}@kubernetesingressnginx"'
            lines += [
                f'traefik_service_requests_total{{code="200",{name}}} {good}',
                f'traefik_service_requests_total{{code="503",{name}}} {bad}',
                f'traefik_service_request_duration_seconds_bucket{{code="200",{name},le="0.1"}} {good - late}',
                f'traefik_service_request_duration_seconds_bucket{{code="200",{name},le="1"}} {good}',
                f'traefik_service_request_duration_seconds_bucket{{code="200",{name},le="+Inf"}} {good}',
            ]
        return "\n".join(lines)


def with_canary(ran: Record) -> Record:
    canary = Slot(release=Release(tag="2", digest="sha256:2"), revision="r2")
    return ran.model_copy(update={"slots": {**ran.slots, "canary": canary}})


def named(thing: dict[str, Any], suffix: str) -> dict[str, Any]:
    return {**thing, "metadata": {**thing["metadata"], "name": thing["metadata"]["name"] + suffix}}


@pytest.fixture
def stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeStack:
    """A stack whose project runs 1 with the canary 2, and a registry that has both."""
    fake = FakeStack(tmp_path / "fake")
    for name, value in fake.variables.items():
        monkeypatch.setenv(name, value)
    (fake.program.folder / "projects" / f"{PROJECT}.yaml").write_text(PROJECT_FILE)
    fake.record = with_canary(record("1"))
    fake.deployments = [deployment("1"), named(deployment("2"), "-canary")]
    fake.proxies = [proxy("traefik-a"), proxy("traefik-of-another", "other")]
    fake.metrics = Traffic()
    fake.order({"events": [BEGUN, STEP]})

    def digest(_: Registry, repository: str, tag: str) -> str:  # noqa: ARG001 - the method's signature
        return f"sha256:{tag}"

    def cluster(_: object) -> Cluster:
        return fake.cluster

    monkeypatch.setattr(Registry, "digest", digest)
    monkeypatch.setattr(release.commands.Session, "cluster", cluster)
    return fake


def run(stack: FakeStack, *words: str, wanted: str = "10,50,100") -> Result:
    command = ["canary", PROJECT, "2", f"--steps={wanted}", *(words or OPTIONS)]
    return CliRunner().invoke(app, [*command, "--stack=test", "--json", f"--cwd={stack.program.folder}"])


def answer(result: Result) -> dict[str, Any]:
    return json.loads(result.stdout)


def released(stack: FakeStack) -> list[dict[str, Any]]:
    """Return the updates that were made, as weight of the canary or tag of the project."""
    ups = [call for call in stack.calls() if call["words"][0] == "up"]
    return [
        call["config"]["config"].get("package-platform:canaries", {}).get(PROJECT)
        or call["config"]["config"]["package-platform:tags"][PROJECT]
        for call in ups
    ]


def test_a_good_canary_goes_up_step_by_step_and_is_promoted(stack: FakeStack) -> None:
    result = run(stack)
    assert result.exit_code == DONE, result.output
    assert released(stack) == [{"tag": "2", "weight": 10}, {"tag": "2", "weight": 50}, "2"]
    said = answer(result)
    assert (said["outcome"], said["exitCode"], said["weight"]) == ("promoted", DONE, None)
    assert [(each["weight"], each["verdict"]) for each in said["windows"]] == [(10, "good"), (50, "good")]
    for each in said["windows"]:
        assert each["canary"]["requests"] > 0
        assert each["stable"]["requests"] == 9 * each["canary"]["requests"]
        assert each["canary"]["p99Seconds"] == pytest.approx(0.099)
    assert f"at 10%: canary {said['windows'][0]['canary']['requests']} requests, 0% errors, p99 99 ms" in result.stderr
    written = [call["words"][4:6] for call in stack.calls() if call["words"][0] == "config"]
    assert [f'package-platform:canaries["{PROJECT}"].weight', "50"] in written
    assert written[-1] == [f'package-platform:tags["{PROJECT}"]', "2"]


@pytest.mark.parametrize(
    ("traffic", "reason"),
    [
        (Traffic(errors=3), "at 10%: error rate 30%, the limit is 10%"),
        (Traffic(slow=1), "at 10%: p99 910 ms, the limit is 500 ms"),
    ],
    ids=["errors", "slow"],
)
def test_a_bad_canary_is_ended_by_itself(stack: FakeStack, traffic: Traffic, reason: str) -> None:
    stack.metrics = traffic
    result = run(stack)
    assert result.exit_code == FAILED, result.output
    assert released(stack) == [{"tag": "2", "weight": 10}, "1"]
    said = answer(result)
    assert (said["outcome"], said["weight"], said["live"]) == ("aborted", 0, "1")
    assert said["reason"].startswith(f"{reason}; canary ")
    assert "; stable " in said["reason"]
    assert said["rule"] == {"maxErrorRate": 0.1, "maxP99Seconds": 0.5, "minRequests": 5}
    assert [each["verdict"] for each in said["windows"]] == ["broken"]
    last = next(call for call in reversed(stack.calls()) if call["words"][0] == "up")
    assert last["config"]["config"]["package-platform:canaries"] == {}


def test_too_few_requests_are_waited_for_and_then_are_the_end(stack: FakeStack) -> None:
    stack.metrics = Traffic(canary=0)
    result = run(stack)
    assert result.exit_code == FAILED, result.output
    assert result.stderr.count("are too few to judge by, 5 are needed: watches for 0 s more") == steps.EXTENSIONS
    said = answer(result)
    assert (said["outcome"], said["windows"][0]["verdict"]) == ("aborted", "scarce")
    assert released(stack)[-1] == "1"


def test_steps_below_100_leave_the_promotion_to_a_person(stack: FakeStack) -> None:
    result = run(stack, wanted="10,50")
    assert result.exit_code == DONE, result.output
    said = answer(result)
    assert (said["outcome"], said["weight"]) == ("waiting", 50)
    assert released(stack) == [{"tag": "2", "weight": 10}, {"tag": "2", "weight": 50}]


def test_a_step_that_can_not_be_made_ends_the_canary(stack: FakeStack) -> None:
    good: dict[str, Any] = {"events": [BEGUN, STEP]}
    written: dict[str, Any] = {}
    failing: dict[str, Any] = {"events": [BEGUN, STEP], "code": 255, "output": "no room"}
    # A canary, two entries of the stack file, a canary that fails and is put back, and the abort.
    stack.order(good, written, written, failing, good)
    result = run(stack)
    assert result.exit_code == FAILED, result.output
    said = answer(result)
    assert said["outcome"] == "aborted"
    assert "canary of SJZY.Package.Api 2 to test failed" in said["reason"]
    assert released(stack)[-1] == "1"


def test_a_first_step_that_fails_changes_nothing_else(stack: FakeStack) -> None:
    stack.record, stack.deployments = record("1"), [deployment("1")]
    stack.order({"events": [BEGUN, STEP], "code": 255}, {"events": [BEGUN]})
    result = run(stack)
    assert result.exit_code == FAILED, result.output
    assert answer(result)["outcome"] == "failed"
    assert len(released(stack)) == 2, "the step, and what puts it back"


def test_an_abort_that_fails_says_what_is_left(stack: FakeStack) -> None:
    stack.metrics = Traffic(errors=10)
    stack.order({"events": [BEGUN, STEP]}, {}, {}, {"events": [BEGUN, STEP], "code": 255})
    result = run(stack)
    assert result.exit_code == BROKEN, result.output
    said = answer(result)
    assert (said["outcome"], said["weight"]) == ("failed", 10)
    assert f"to end it: release abort {PROJECT} -s test" in said["reason"]


def test_what_another_command_has_moved_meanwhile_is_left_alone(stack: FakeStack) -> None:
    traffic = Traffic()

    def metrics(name: str) -> str:
        if traffic.asked == 3:
            stack.record, stack.deployments = record("3", "1"), [deployment("3")]
        return traffic(name)

    stack.metrics = metrics
    result = run(stack)
    assert result.exit_code == BROKEN, result.output
    said = answer(result)
    assert (said["outcome"], said["weight"], said["live"]) == ("failed", None, None)
    # The third question may be the end of one window or the begin of the next.
    assert len(said["windows"]) in {1, 2}
    assert "another command has changed SJZY.Package.Api since the canary had 10%" in said["reason"]
    assert released(stack) == [{"tag": "2", "weight": 10}]


def test_a_proxy_that_is_silent_for_a_while_does_no_harm(stack: FakeStack) -> None:
    traffic = Traffic()
    stack.proxies = [proxy("traefik-a"), proxy("traefik-b")]

    def metrics(name: str) -> str:
        return "no metrics {" if name == "traefik-b" and traffic.asked > 1 else traffic(name)

    stack.metrics = metrics
    assert run(stack).exit_code == DONE


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_leaves_the_weight_and_says_how_to_go_on(stack: FakeStack, number: signal.Signals) -> None:
    traffic = Traffic()
    stack.metrics = traffic
    done = threading.Event()

    def interrupt() -> None:
        deadline = time.monotonic() + 30
        while traffic.asked < 3 and time.monotonic() < deadline and not done.is_set():
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=interrupt)
    thread.start()
    before = signal.getsignal(number)
    result = run(stack, "--pause=61s", "--max-p99=500ms", "--min-requests=5", "--header=X-Try")
    done.set()
    thread.join()
    assert isinstance(result.exception, InterruptedRunError), result.output
    assert result.exception.code == 128 + number
    told = "--header X-Try --pause 61s --max-p99 0.5s --min-requests 5"
    assert result.exception.lines[1:] == (
        f"{PROJECT} 2 keeps its 10% of the requests",
        f"to go on: release canary {PROJECT} 2 -s test --steps 10,50,100 {told}",
        f"to end it: release abort {PROJECT} -s test",
    )
    assert released(stack) == [{"tag": "2", "weight": 10, "header": "X-Try"}]
    assert signal.getsignal(number) == before


def refusal(stack: FakeStack) -> str:
    result = run(stack)
    assert isinstance(result.exception, steps.ReleaseError), result.output
    assert result.exception.code == REFUSED
    assert stack.calls() == []
    return str(result.exception)


def test_an_ingress_that_is_not_on_vms_is_refused(stack: FakeStack) -> None:
    file = stack.program.stack_file
    file.write_text(file.read_text().replace("registry:", "ingress: {dialect: alb}\n    registry:"))
    assert "with the dialect alb they are not supported yet: use --weight" in refusal(stack)


def test_a_project_without_routes_is_refused(stack: FakeStack) -> None:
    (stack.program.folder / "projects" / f"{PROJECT}.yaml").write_text("kind: backend\nstrategy: canary\n")
    assert refusal(stack).startswith(f"projects/{PROJECT}.yaml:routes: there are none")


def test_a_cluster_without_our_proxies_is_refused(stack: FakeStack) -> None:
    stack.proxies = [proxy("traefik-of-another", "other")]
    assert "no proxy of the platform's own ingress serves the class nginx" in refusal(stack)


def test_proxies_that_tell_nothing_are_refused(stack: FakeStack) -> None:
    stack.metrics = None
    assert "no proxy of the ingress told its metrics" in refusal(stack)


def test_numbers_of_the_command_line() -> None:
    assert [seconds(each) for each in ("500ms", "60s", "1.5m", "1h")] == [0.5, 60, 90, 3600]
    assert [share(each) for each in ("0%", "0.5%", "100%")] == [0, 0.005, 1]
    assert weights("5, 25,50,100") == (5, 25, 50, 100)


@pytest.mark.parametrize(
    ("read", "text"),
    [
        *((seconds, each) for each in ("60", "0s", "-1s", "1d", "")),
        *((share, each) for each in ("1", "101%", "-1%", "")),
        *((weights, each) for each in ("", "5,x", "5,5", "50,25", "0,5", "100", "5,101", "5,,100", "²")),
    ],
)
def test_what_is_no_number_is_refused(read: Callable[[str], object], text: str) -> None:
    with pytest.raises(typer.BadParameter):
        read(text)


def test_steps_and_a_weight_contradict_each_other(stack: FakeStack) -> None:
    result = run(stack, "--weight=10")
    assert result.exit_code == REFUSED
    assert "--weight: not beside --steps" in result.output


def noting(stack: FakeStack, traffic: Traffic) -> None:
    """Let the stack file have the canary as soon as the proxies are asked, as a real `pulumi config set` would."""
    file = stack.program.stack_file
    text = f"{file.read_text()}  package-platform:canaries:\n    {PROJECT}: {{tag: '2', weight: 10}}\n"

    def metrics(name: str) -> str:
        file.write_text(text)
        return traffic(name)

    stack.metrics = metrics


@pytest.mark.parametrize(
    ("traffic", "outcome"), [(Traffic(errors=3), "aborted"), (Traffic(), "promoted")], ids=["aborted", "promoted"]
)
def test_a_canary_that_has_ended_is_not_left_in_the_stack_file(
    stack: FakeStack, traffic: Traffic, outcome: str
) -> None:
    noting(stack, traffic)
    assert answer(run(stack))["outcome"] == outcome
    assert stack.calls()[-1]["words"][:4] == ["config", "rm", "--path", f'package-platform:canaries["{PROJECT}"]']


GOOD: dict[str, Any] = {"events": [BEGUN, STEP]}
WRITTEN: dict[str, Any] = {}
FULL: dict[str, Any] = {"code": 1, "output": "error: no space left on device"}
LOCKED: dict[str, Any] = {"code": 255, "output": "error: the stack is currently locked by 1 lock(s)."}
REFUSING: dict[str, Any] = {"events": [BEGUN], "code": 255, "output": "error: replica: unknown key"}


@pytest.mark.parametrize(
    ("orders", "reason"),
    [
        ((GOOD, WRITTEN, WRITTEN, LOCKED, GOOD), "the stack is locked by another run"),
        ((GOOD, WRITTEN, WRITTEN, GOOD, FULL, GOOD), "no space left on device"),
        ((GOOD, FULL, GOOD), "no space left on device"),
        ((GOOD, WRITTEN, WRITTEN, REFUSING, GOOD), "replica: unknown key"),
    ],
    ids=["locked", "stack file", "stack file at the first step", "refused"],
)
def test_whatever_ends_the_steps_ends_the_canary(
    stack: FakeStack, orders: tuple[dict[str, Any], ...], reason: str
) -> None:
    stack.order(*orders)
    result = run(stack, *OPTIONS, "--wait-lock=0")
    assert result.exit_code == FAILED, result.output
    said = answer(result)
    assert (said["outcome"], said["weight"], said["live"]) == ("aborted", 0, "1")
    assert reason in said["reason"]
    assert "by hand" not in said["reason"]
    assert released(stack)[-1] == "1"


def test_a_registry_that_is_away_between_two_steps_ends_the_canary(
    stack: FakeStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(_: Registry, repository: str, tag: str) -> str:
        if [each for each in released(stack) if each == {"tag": "2", "weight": 10}]:
            raise RegistryError(f"the registry does not answer when asked for {repository}:{tag}")
        return f"sha256:{tag}"

    monkeypatch.setattr(Registry, "digest", away)
    result = run(stack)
    assert result.exit_code == FAILED, result.output
    said = answer(result)
    assert (said["outcome"], [each["weight"] for each in said["windows"]]) == ("aborted", [10])
    assert "the registry does not answer" in said["reason"]
    assert released(stack) == [{"tag": "2", "weight": 10}, "1"]


@pytest.mark.parametrize(
    ("traffic", "orders", "outcome"),
    [
        (Traffic(), (GOOD, WRITTEN, WRITTEN, GOOD, FULL), "promoted"),
        (Traffic(errors=3), (GOOD, WRITTEN, WRITTEN, GOOD, FULL), "aborted"),
    ],
    ids=["promoted", "aborted"],
)
def test_an_end_that_the_stack_file_does_not_know_of_is_told(
    stack: FakeStack, traffic: Traffic, orders: tuple[dict[str, Any], ...], outcome: str
) -> None:
    noting(stack, traffic)
    stack.order(*orders)
    result = run(stack, wanted="10,100")
    assert result.exit_code == BROKEN, result.output
    said = answer(result)
    assert said["outcome"] == outcome
    assert "what runs is as wished, and Pulumi.test.yaml is not: write there by hand: " in said["reason"]


def test_an_interruption_at_the_end_of_a_step_is_heard(stack: FakeStack, monkeypatch: pytest.MonkeyPatch) -> None:
    make = Changer.make

    def interrupted(changer: Changer, application: Application, wish: Wish) -> Changed:
        changed = make(changer, application, wish)
        os.kill(os.getpid(), signal.SIGTERM)
        return changed

    monkeypatch.setattr(Changer, "make", interrupted)
    result = run(stack)
    assert isinstance(result.exception, InterruptedRunError), result.output
    assert result.exception.code == 128 + signal.SIGTERM
    assert f"{PROJECT} 2 keeps its 10% of the requests" in result.exception.lines
    assert released(stack) == [{"tag": "2", "weight": 10}]
