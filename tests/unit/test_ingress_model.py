"""The cluster's ingress as it is written: what is refused, each with one line, and what follows from it."""

import math
from typing import Any

import pytest

from model.ingress import NlbIngress
from model.problems import SettingsError
from model.stack import Stack, parse_stack

FILE = "Pulumi.test.yaml"
NODES = [
    {"name": "n1", "address": "10.0.0.11"},
    {"name": "n2", "address": "10.0.0.12"},
    {"name": "n3", "address": "10.0.0.13"},
]
VIP = {"address": "10.0.0.100", "routerId": 51}
KEEPALIVED: dict[str, Any] = {"kind": "keepalived", "network": "10.0.0.0/24", "nodes": NODES, "vips": [VIP]}
ALB: dict[str, Any] = {"kind": "alb", "vSwitches": ["vsw-bp1a", "vsw-bp1b", "vsw-bp1c"]}
TLS = {"secret": "wildcard"}
NLB: dict[str, Any] = {
    "kind": "nlb",
    "zones": ["cn-hangzhou-h:vsw-bp1a", "cn-hangzhou-i:vsw-bp1b"],
    "proxy": {"trustedProxies": ["10.20.0.0/20"]},
}


def parse(ha: dict[str, Any], **ingress: Any) -> Stack:
    environment = {
        "namespace": "package-test",
        "domain": "test.example.com",
        "registry": {"host": "harbor.example.com"},
        "ingress": {"ha": ha, "dialect": "alb" if ha.get("kind") == "alb" else "nginx", **ingress},
    }
    return parse_stack(FILE, "test", {"environment": environment}, {})


def problems(ha: dict[str, Any]) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        parse(ha)
    prefix = f"{FILE}:package-platform:environment.ingress.ha"
    lines = str(caught.value).splitlines()
    assert all(line.startswith(prefix) for line in lines), lines
    return [line.removeprefix(prefix).lstrip(".") for line in lines]


@pytest.mark.parametrize("ha", [KEEPALIVED, ALB, NLB], ids=lambda ha: ha["kind"])
def test_good_input_is_no_problem(ha: dict[str, Any]) -> None:
    assert parse(ha).environment.ingress.ha is not None


def test_address_is_the_first_vip_unless_it_is_written() -> None:
    assert parse(KEEPALIVED).environment.ingress.entry == "10.0.0.100:80"
    assert parse({**KEEPALIVED, "tls": TLS}, scheme="https").environment.ingress.entry == "10.0.0.100:443"
    assert parse(KEEPALIVED, address="10.9.9.9:80").environment.ingress.entry == "10.9.9.9:80"
    assert parse(ALB).environment.ingress.entry is None


def refused(ha: dict[str, Any], **ingress: Any) -> str:
    with pytest.raises(SettingsError) as caught:
        parse(ha, **ingress)
    return str(caught.value).removeprefix(f"{FILE}:package-platform:environment.ingress: ")


def test_the_dialect_is_that_of_the_way_in() -> None:
    assert refused(ALB, dialect="nginx") == "ha is of kind alb, which needs dialect: alb"
    assert refused(NLB, dialect="alb") == "ha is of kind nlb, which needs dialect: nginx"


def test_https_at_an_alb_needs_a_certificate() -> None:
    assert "scheme: https needs ha.certificateIds" in refused(ALB, scheme="https")
    parse({**ALB, "certificateIds": ["1234567-cn-hangzhou"]}, scheme="https")


@pytest.mark.parametrize("ha", [KEEPALIVED, NLB], ids=lambda ha: ha["kind"])
def test_https_at_our_own_proxies_needs_a_certificate_or_what_ends_it_before_them(ha: dict[str, Any]) -> None:
    assert refused(ha, scheme="https") == (
        "scheme: https needs ha.tls, without which nothing listens at port 443; "
        "where something in front ends TLS, name its address"
    )
    assert parse({**ha, "tls": TLS}, scheme="https")
    assert parse(ha, scheme="https", address="10.9.9.9:443").environment.ingress.entry == "10.9.9.9:443"


def test_the_proxies_behind_an_nlb_have_no_unsafe_sysctl() -> None:
    (line,) = problems({**NLB, "proxy": {**NLB["proxy"], "tcpRetries": 3}})
    assert line.endswith(
        'proxy.tcpRetries: has no place with kind: nlb, whose namespace is "restricted" and admits no pod with that '
        "sysctl: remove it"
    )
    assert parse({**KEEPALIVED, "proxy": {"tcpRetries": 3}})


@pytest.mark.parametrize("proxy", [{}, {"trustedProxies": []}])
def test_the_proxies_behind_an_nlb_are_told_whom_to_believe_the_clients_address(proxy: dict[str, Any]) -> None:
    (line,) = problems({**NLB, "proxy": proxy})
    assert line.endswith(
        "proxy.trustedProxies: is required with kind: nlb, or the balancer is taken for every client: name the "
        "networks of the vSwitches in zones"
    )


def test_one_proxy_of_three_may_be_away_behind_an_nlb() -> None:
    ingress = parse(NLB).environment.ingress.ha
    assert isinstance(ingress, NlbIngress)
    # Kubernetes rounds up.
    assert math.ceil(ingress.replicas * ingress.max_unavailable / 100) == 1


def vips(*addresses: str) -> list[dict[str, Any]]:
    return [{"address": address, "routerId": 51 + index} for index, address in enumerate(addresses)]


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"vips": vips("10.1.0.100")}, "vips: 10.1.0.100 is no host of the network 10.0.0.0/24"),
        ({"vips": vips("10.0.0.255")}, "vips: 10.0.0.255 is no host of the network 10.0.0.0/24"),
        ({"vips": vips("10.0.0.12")}, "vips: 10.0.0.12 is the address of n2: choose one of no machine"),
        ({"vips": vips("10.0.0.100", "10.0.0.100")}, "vips: 10.0.0.100 is there twice"),
        (
            {"vips": [VIP, {"address": "10.0.0.101", "routerId": 51}]},
            "vips: routerId 51 is there twice: each VIP has its own",
        ),
        ({"vips": []}, "vips: name 1 to 16 addresses"),
        ({"nodes": NODES[:1]}, "nodes: a single point of failure: name 2 ingress nodes or more"),
        ({"nodes": [*NODES, {"name": "n1", "address": "10.0.0.14"}]}, "nodes: the name n1 is there twice"),
        ({"nodes": [*NODES, {"name": "n4", "address": "10.0.0.11"}]}, "nodes: the address 10.0.0.11 is there twice"),
        (
            {"nodes": [*NODES, {"name": "n4", "address": "10.2.0.11"}]},
            "nodes: n4 has 10.2.0.11, which is no host of the network 10.0.0.0/24",
        ),
        (
            {"interface": "eth0 up"},
            (
                "interface: 'eth0 up' is no network interface, such as eth0: "
                "at most 15 letters, digits, '.', '_', '-', '@'"
            ),
        ),
        ({"network": "10.0.0.1/24"}, "network: '10.0.0.1/24' is no IPv4 network, such as 10.0.0.0/24"),
        ({"vips": [{**VIP, "routerId": 256}]}, "vips.0.routerId: input should be less than or equal to 255 (got 256)"),
        ({"vip": []}, "vip: unknown key; did you mean 'vips'?"),
        ({"auth": "secret"}, "auth: unknown key"),
        (
            {"handOverSeconds": 7},
            "handOverSeconds: the VIP leaves within 11 s, but the proxy accepts for 10 s: raise proxy.acceptSeconds",
        ),
        (
            {"proxy": {"resources": {"memory": "1Gi", "memoryLimit": "512Mi"}}},
            "proxy.resources: memory 1Gi is over memoryLimit 512Mi",
        ),
        ({"proxy": {"resources": {"memory": "513Mi"}}}, "proxy.resources: memory 513Mi is over memoryLimit 512Mi"),
        ({"proxy": {"tries": 0}}, "proxy.tries: input should be greater than or equal to 1 (got 0)"),
    ],
)
def test_what_is_refused(change: dict[str, Any], line: str) -> None:
    (problem,) = problems({**KEEPALIVED, **change})
    assert problem.startswith(line)


def test_all_problems_come_at_once() -> None:
    found = problems({**KEEPALIVED, "nodes": NODES[:1], "vips": vips("10.0.0.11", "10.3.0.1")})
    assert [line.split(":")[0] for line in found] == ["nodes", "vips", "vips"]


def test_one_zone_is_no_high_availability() -> None:
    (line,) = problems({**ALB, "vSwitches": ["vsw-bp1a"]})
    assert line.endswith("vSwitches: one is a single point of failure: name one in each of two zones or more")
    (line,) = problems({**NLB, "zones": ["cn-hangzhou-h:vsw-bp1a", "cn-hangzhou-h:vsw-bp1b"]})
    assert line.endswith("zones: cn-hangzhou-h is there twice")


def test_an_unknown_kind_is_told_with_those_that_there_are() -> None:
    (line,) = problems({**KEEPALIVED, "kind": "metallb"})
    assert "'keepalived', 'alb', 'nlb'" in line
