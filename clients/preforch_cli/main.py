"""`preforch COMMAND ...`

In:  command line arguments.
Out: an exit code: 0 done, 1 failed (a server that does not answer, a missing package), 2 bad input, 130
     interrupted.

Only the module of the chosen command is imported: `preforch weights` needs no torch, `preforch --help` needs
nothing. Set PREFORCH_TRACEBACK=1 to see where an error came from.
"""

import argparse
import importlib
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata

from preforch_cli.errors import CommandFailed, MissingExtra

PROGRAM = "preforch"


@dataclass(frozen=True)
class Command:
    """Where a command lives.

    In `module.[prefix_]add_arguments(parser)` and `module.run[_prefix](args) -> int`.
    """

    summary: str
    module: str
    add_arguments: str = "add_arguments"
    run: str = "run"
    extras: str = "client"

    def load(self) -> tuple[Callable[[argparse.ArgumentParser], None], Callable[[argparse.Namespace], int]]:
        """Its two functions. Raises ImportError where its extra is missing."""
        module = importlib.import_module(self.module)
        return getattr(module, self.add_arguments), getattr(module, self.run)


QUIET = {"ORT_DISABLE_TELEMETRY": "1", "VLLM_NO_USAGE_STATS": "1"}
"""ONNX Runtime (when it is imported) and vLLM report to their makers unless told otherwise."""

COMMANDS = {
    "train": Command(
        "learn rewards, orchestrator and policy, as a config file says",
        "preforch_training.cli",
        "add_train_arguments",
        "run_train",
        "training",
    ),
    "plan": Command(
        "say what a config takes: parameters, memory, GPU hours, downloads, and what is missing here",
        "preforch_training.plan.command",
        extras="training",
    ),
    "serve": Command("serve weights and answers over HTTP", "preforch_service.cli", extras="service"),
    "keygen": Command("make an API key for a gateway", "preforch_service.keygen", extras="service"),
    "engine-args": Command(
        "print the arguments of a vLLM that runs apart", "preforch_service.engine.arguments", extras="service"
    ),
    "demo": Command(
        "train everything on the built-in demo world and serve it",
        "preforch_training.cli",
        "add_demo_arguments",
        "run_demo",
        "training,service,vllm,demo",
    ),
    "card": Command(
        "make a policy of an instruct model as it is, which is told the weights in words",
        "preforch_training.untrained.command",
        extras="training",
    ),
    "inspect": Command(
        "show what a run, bundle or policy holds",
        "preforch_training.cli",
        "add_inspect_arguments",
        "run_inspect",
        "training",
    ),
    "answers": Command(
        "answer a benchmark's questions by a policy of a run, in the format of AlpacaEval, Arena-Hard or "
        "MT-Bench",
        "preforch_training.cli",
        "add_answers_arguments",
        "run_answers",
        "training,vllm",
    ),
    "push": Command(
        "send a run, bundle or policy to a Hugging Face hub",
        "preforch_training.cli",
        "add_push_arguments",
        "run_push",
        "training",
    ),
    "weights": Command("ask a gateway which weights it recommends for a prompt", "preforch_cli.weights"),
    "chat": Command("chat with a gateway in the terminal", "preforch_cli.chat"),
    "bench": Command("measure latency and throughput of a gateway, a first look", "preforch_cli.bench"),
    "completion": Command("print what makes a shell complete this command", "preforch_cli.completion"),
}


def main(argv: list[str] | None = None) -> int:
    """Run one command. Returns the exit code; raises nothing but what PREFORCH_TRACEBACK asks for."""
    arguments = sys.argv[1:] if argv is None else argv
    os.environ.update({name: os.environ.get(name, value) for name, value in QUIET.items()})
    try:
        return _run(arguments)
    except SystemExit as stop:  # argparse, after printing help or what is wrong
        return stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
    except KeyboardInterrupt:
        return 130
    except (CommandFailed, ValueError, OSError) as error:
        if os.environ.get("PREFORCH_TRACEBACK"):
            raise
        message = str(error).strip() or type(error).__name__
        print(f"{PROGRAM}: error: {message}", file=sys.stderr)
        return 2 if isinstance(error, ValueError | FileNotFoundError) else 1
    except Exception as error:  # what nobody foresaw is one line for a user as well
        if os.environ.get("PREFORCH_TRACEBACK"):
            raise
        what = f"{type(error).__name__}: {error}".strip()
        print(
            f"{PROGRAM}: error: this should not have happened: {what} (PREFORCH_TRACEBACK=1 shows where)",
            file=sys.stderr,
        )
        return 1


def _run(arguments: list[str]) -> int:
    chosen = arguments[0] if arguments else ""
    if chosen not in COMMANDS:
        return _no_command(arguments)
    command = COMMANDS[chosen]
    try:
        add_arguments, run = command.load()
        parser = argparse.ArgumentParser(prog=f"{PROGRAM} {chosen}", description=_sentence(command.summary))
        add_arguments(parser)
        return run(parser.parse_args(arguments[1:]))
    except ImportError as error:
        package = missing_package(error)
        raise MissingExtra(chosen, package=package, extras=command.extras, why=str(error)) from error


def missing_package(error: ImportError) -> str:
    """What could not be imported. Raises the error itself where that is a module of this project."""
    package = (error.name or "").partition(".")[0]
    if not package or package.startswith("preforch_"):
        raise error
    return package


def _no_command(arguments: list[str]) -> int:
    """Print the help or the version, or say which commands there are."""
    program_parser()[0].parse_args(arguments)
    return 0


def program_parser() -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    """The parser of `preforch` itself, and those of its commands, whose arguments are not declared yet."""
    parser = argparse.ArgumentParser(
        prog=PROGRAM, description="Learn and serve, per prompt, how much each objective should count."
    )
    parser.add_argument("--version", action="version", version=_version())
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    return parser, {
        name: commands.add_parser(name, help=command.summary) for name, command in COMMANDS.items()
    }


def _sentence(summary: str) -> str:
    return summary[0].upper() + summary[1:] + "."


def _version() -> str:
    try:
        return f"{PROGRAM} {metadata.version('preference-orchestrator')}"
    except metadata.PackageNotFoundError:
        return f"{PROGRAM} (not installed)"


if __name__ == "__main__":
    sys.exit(main())
