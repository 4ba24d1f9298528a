"""The way into a cluster that the stack itself has made; knows nothing of any cloud."""

from __future__ import annotations

from datetime import datetime, timedelta

import pulumi
from pulumi_kubernetes import Provider

from model.ack import AckSettings, Connection

PROVIDER = "ack"
"""Name of the provider of Kubernetes in the stack; another one would replace every object."""
RELEASE_MINUTES = 15
"""A run that registers one project takes no longer; it can't renew the credential."""


class ExpiredError(Exception):
    """The credential that the stack's provider has is of no use any more."""


def provider(settings: AckSettings, kubeconfig: pulumi.Input[str]) -> Provider:
    """Return the provider of everything in the cluster.

    Its ``cluster_identifier`` is the cluster's name: another credential or endpoint updates it, and replaces nothing.
    """
    secret = pulumi.Output.secret(kubeconfig)
    return Provider(PROVIDER, kubeconfig=secret, cluster_identifier=settings.name)


def left(expires: str, now: datetime) -> timedelta:
    """Return how long a credential still lives; a time that can't be read is over."""
    try:
        return datetime.fromisoformat(expires) - now
    except (ValueError, TypeError):
        return timedelta()


def known_provider(settings: AckSettings, known: Connection | None, now: datetime) -> Provider:
    """Return the provider for a run that registers one project, with what the last whole run left.

    Pulumi leaves alone what is not targeted, so such a run has the credential of the state. To target the provider too
    would delete every object that is not registered (tried with 3.259).

    Args:
        settings: The cluster.
        known: What the stack's outputs tell.
        now: The time.

    Raises:
        ExpiredError: If there is none, or it is about to expire.
    """
    if known is None:
        raise ExpiredError("the stack's cluster is not known yet: run `pulumi up` of the whole stack first")
    if settings.credential == "temporary" and left(known.expires, now) < timedelta(minutes=RELEASE_MINUTES):
        urn = f"urn:pulumi:{pulumi.get_stack()}::{pulumi.get_project()}::pulumi:providers:kubernetes::{PROVIDER}"
        raise ExpiredError(
            f"the cluster's credential in the state ends at {known.expires}: renew it with `pulumi up --target {urn}`, "
            "or set package-platform:cluster.credential to plugin"
        )
    return provider(settings, known.kubeconfig)
