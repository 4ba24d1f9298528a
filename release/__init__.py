"""The command ``release``: deploys, rolls back and explains, one project at a time."""
