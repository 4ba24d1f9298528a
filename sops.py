"""Encrypted files, read by ``sops`` itself: whatever keys it knows (age, a cloud's KMS, Vault) will do.

It gets the file on standard input and its keys as it always does, by environment variables such as
``SOPS_AGE_KEY_FILE``: neither is ever an argument. What it says of a failure may quote what it has read, so it is not
handed on.
"""

from __future__ import annotations

import subprocess

_SECONDS = 60.0
_NO_KEY = "Failed to get the data key"
_CHANGED = "MAC mismatch"


class SopsError(Exception):
    """A file can't be decrypted; the message says why and what to do, and nothing of the file."""


def decrypt(file: str, content: bytes) -> bytes:
    """Return what was in a file before it was encrypted.

    Args:
        file: Its path; what it is, sops tells by its ending.
        content: Its bytes.

    Raises:
        SopsError: If it can't be decrypted.
    """
    try:
        finished = subprocess.run(
            ["sops", "decrypt", "--filename-override", file],
            input=content,
            capture_output=True,
            timeout=_SECONDS,
            check=False,
        )
    except FileNotFoundError:
        raise SopsError("`sops` is not on PATH: install it (https://getsops.io)") from None
    except subprocess.TimeoutExpired:
        raise SopsError(f"`sops decrypt` did not end in {_SECONDS:.0f} s") from None
    if finished.returncode:
        raise SopsError(_why(finished.stderr.decode(errors="replace"), finished.returncode))
    return finished.stdout


def _why(said: str, code: int) -> str:
    if _NO_KEY in said:
        return "is encrypted for others: let SOPS_AGE_KEY_FILE name the file with a key that it was encrypted for"
    if _CHANGED in said:
        return "was changed by hand after it was encrypted: restore it, and change it with `sops edit`"
    return f"can't be decrypted: `sops decrypt` in the checkout says why (exit code {code})"
