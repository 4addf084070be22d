"""`preforch completion SHELL`: a script that makes a shell complete commands, options, choices and files.

In:  the arguments of all commands whose extras are installed.
Out: the script on stdout. It is made once, by shtab, and runs nothing of this project: a press of Tab must
     not wait for Python.
"""

import argparse
import sys
from pathlib import Path

import shtab

from preforch_cli.main import COMMANDS, missing_package, program_parser

SHELLS = ("bash", "zsh", "fish")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The shell."""
    parser.add_argument("shell", choices=SHELLS)
    parser.epilog = (
        "bash: preforch completion bash > ~/.local/share/bash-completion/completions/preforch; "
        'zsh: preforch completion zsh > "${fpath[1]}/_preforch"; '
        "fish: preforch completion fish > ~/.config/fish/completions/preforch.fish"
    )


def run(args: argparse.Namespace) -> int:
    """Print the script."""
    script: str = shtab.complete(_whole_parser(), shell=args.shell)
    sys.stdout.write(script)
    return 0


def _whole_parser() -> argparse.ArgumentParser:
    """The parser of `preforch` with all arguments of its commands."""
    program, commands = program_parser()
    for name, parser in commands.items():
        try:
            add_arguments_of, _ = COMMANDS[name].load()
        except ImportError as error:
            missing_package(error)
            continue  # the extra is not installed: the name alone is completed
        add_arguments_of(parser)
        for action in parser._actions:
            if action.type is Path or action.metavar == "FILE":
                action.complete = shtab.FILE  # type: ignore[attr-defined]  # shtab's interface
    return program
