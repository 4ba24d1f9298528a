"""Pure, typed and frozen: what a project, an environment and a release are.

Nothing here imports Pulumi or touches network, clock or disk, so every rule can be tested in microseconds.
"""
