"""Hypothesis strategies that several test files share."""

from hypothesis import strategies as st

gitea_names = st.from_regex(r"[A-Za-z0-9_.-]{1,100}", fullmatch=True)
"""Any name that Gitea accepts for a project."""
