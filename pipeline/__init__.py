"""The chain from a push to a release: Gitea → webhook → Jenkins job → image → registry → ``release deploy``."""
