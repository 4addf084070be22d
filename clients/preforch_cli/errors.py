"""Errors that the command itself raises; `main` prints them as one line and exits with their code."""


class CommandFailed(Exception):
    """Something outside the command failed: exit code 1."""


class MissingExtra(CommandFailed):
    """A command needs packages that are not installed, or are too old."""

    def __init__(self, command: str, *, package: str, extras: str, why: str) -> None:
        super().__init__(
            f"`preforch {command}` needs the package {package!r} ({why}); "
            f"pip install 'preference-orchestrator[{extras}]'"
        )
