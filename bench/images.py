"""Tags for the made-up projects: further names for the sample images, so that every change is a real one."""

from http import HTTPStatus

import httpx2

SOURCE_TAG = "2022-08-03-18-54"
"""A tag of every sample image."""
_TYPES = "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json"
_TIMEOUT_SECONDS = 30.0


class TagError(Exception):
    """The registry refused; the message says what was asked."""


class Tagger:
    """Gives an image another tag, by the registry's own protocol.

    https://github.com/opencontainers/distribution-spec/blob/main/spec.md#push
    """

    def __init__(self, endpoint: str) -> None:
        """Prepare to ask.

        Args:
            endpoint: URL of the registry.
        """
        self._client = httpx2.Client(base_url=endpoint, timeout=_TIMEOUT_SECONDS, trust_env=False)
        self._manifests: dict[str, httpx2.Response] = {}

    def tag(self, repository: str, tag: str) -> str:
        """Name the sample image of a repository `tag` too, and return its digest.

        Raises:
            TagError: The registry refused.
        """
        manifest = self._manifests.get(repository) or self._get(repository)
        self._manifests[repository] = manifest
        answer = self._client.put(
            f"/v2/{repository}/manifests/{tag}",
            content=manifest.content,
            headers={"Content-Type": manifest.headers["Content-Type"]},
        )
        if answer.status_code != HTTPStatus.CREATED:
            raise TagError(f"the registry answered {answer.status_code} to the tag {repository}:{tag}")
        return answer.headers["Docker-Content-Digest"]

    def _get(self, repository: str) -> httpx2.Response:
        answer = self._client.get(f"/v2/{repository}/manifests/{SOURCE_TAG}", headers={"Accept": _TYPES})
        if answer.status_code != HTTPStatus.OK:
            raise TagError(
                f"the registry has no sample {repository}:{SOURCE_TAG} ({answer.status_code}): "
                "push the samples with `python -m devcluster up`"
            )
        return answer
