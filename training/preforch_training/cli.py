"""`preforch train`, `demo`, `inspect`, `answers`, `push`: arguments in, exit code out.

Heavy modules are imported when a command runs, so that `--help` is quick.
"""

import argparse
import os
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

from preforch_training.stages import STAGES

DEMO_CONFIG = Path("training/configs/demo.toml")
# Where the wheel puts the same files, below the environment.
INSTALLED_CONFIGS = Path("share/preference-orchestrator/configs")
ANSWER_FORMATS = ("alpaca_eval", "arena_hard", "mt_bench")
"""Those of `answers.formats`, which is not imported for a `--help`."""


def add_train_arguments(parser: argparse.ArgumentParser) -> None:
    """`preforch train STAGE CONFIG [--set section.key=value ...] [--nproc N]`."""
    parser.add_argument(
        "stage",
        choices=["all", *STAGES],
        help="`all` runs every stage in order; what is up to date is skipped",
    )
    parser.add_argument("config", type=Path, help="TOML file of the run")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        dest="settings",
        metavar="KEY=VALUE",
        help="e.g. --set run.seed=2",
    )
    _add_nproc(parser)


def run_train(args: argparse.Namespace) -> int:
    """Build one stage or all of them; as a launcher's rank above 0, help with it."""
    _quiet_libraries()
    if _is_helper():
        return _help()
    from preforch_training.config import read_config

    config = read_config(args.config, settings=tuple(args.settings))
    # After the configuration: one that is wrong must not wait for torch.
    from preforch_training.pipeline import train

    train(config, stage=args.stage, processes=args.nproc)
    return 0


def add_demo_arguments(parser: argparse.ArgumentParser) -> None:
    """`preforch demo [--no-serve] [--port N] [--set ...] [--nproc N]`."""
    installed = Path(sysconfig.get_path("data")) / INSTALLED_CONFIGS / DEMO_CONFIG.name
    config = DEMO_CONFIG if DEMO_CONFIG.is_file() else installed
    parser.add_argument("--config", type=Path, default=config, help=f"default: {config}")
    parser.add_argument("--set", action="append", default=[], dest="settings", metavar="KEY=VALUE")
    parser.add_argument("--port", type=int, default=8000, help="where the gateway listens, default 8000")
    parser.add_argument("--no-serve", action="store_true", help="stop the service after the answers and exit")
    _add_nproc(parser)


def run_demo(args: argparse.Namespace) -> int:
    """Train the demo, serve it, and show what weights change."""
    _quiet_libraries()
    if _is_helper():
        return _help()
    from preforch_training.config import read_config

    config = read_config(args.config, settings=tuple(args.settings))
    if config.policy is None:
        raise ValueError(f"{args.config}: the demo shows what a policy answers, and there is none")
    if config.data.source != "demo":
        raise ValueError(
            f"{args.config}: the demo asks prompts of the demo world, and data.source is "
            f'{config.data.source!r}; for other data there are "preforch train" and "preforch serve"'
        )
    from preforch_training.demo.show import serve_and_show
    from preforch_training.pipeline import train

    train(config, stage="all", processes=args.nproc)
    sampling = config.policy.sampling
    return serve_and_show(config.run.folder, sampling, port=args.port, stay=not args.no_serve)


def add_inspect_arguments(parser: argparse.ArgumentParser) -> None:
    """`preforch inspect RUN|BUNDLE|ARTIFACT`, or `preforch inspect RUN RUN ...` for means over seeds."""
    parser.add_argument(
        "paths",
        type=Path,
        nargs="+",
        metavar="PATH",
        help="a run, a bundle or any artifact in a run; of several runs that differ in the seed: means and "
        "intervals",
    )


def run_inspect(args: argparse.Namespace) -> int:
    """Print what a run or an artifact holds and how it was made, or the numbers of several runs together."""
    if len(args.paths) == 1:
        from preforch_training.inspection import describe

        print(describe(args.paths[0]))
        return 0
    # Only for several runs: it reads reports, whose records load the model libraries.
    from preforch_training.seeds import summarise

    print(summarise(args.paths))
    return 0


def _add_nproc(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--nproc",
        type=_count,
        metavar="N",
        help="train with N processes, one for each GPU; or start this with torchrun or `accelerate launch`",
    )


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text}: at least 1 is needed")
    return number


def _is_helper() -> bool:
    """Whether a launcher started this process beside rank 0."""
    return int(os.environ.get("RANK", "0")) > 0


def _help() -> int:
    """Do what rank 0 asks for."""
    # Before tqdm is imported: bars are rank 0's.
    os.environ["TQDM_DISABLE"] = "1"
    from preforch_training.distributed.group import launched_place
    from preforch_training.distributed.worker import run

    place = launched_place()
    assert place is not None, "RANK is set"
    return run(place, None)


def add_push_arguments(parser: argparse.ArgumentParser) -> None:
    """`preforch push RUN|BUNDLE|ARTIFACT --repo ORG/NAME [--public] [--dry-run] ...`."""
    parser.add_argument("path", type=Path, metavar="RUN|BUNDLE|ARTIFACT")
    parser.add_argument("--repo", required=True, metavar="ORG/NAME", help="made where it is not there yet")
    parser.add_argument(
        "--artifact",
        action="append",
        default=[],
        dest="artifacts",
        metavar="PLACE",
        help="of a run, e.g. policy/wic/round-2; repeat; default: its bundle and the policy to serve",
    )
    parser.add_argument("--branch", default="main", help="default main; made where it is not there yet")
    parser.add_argument("--public", action="store_true", help="everybody may read it; default: private")
    parser.add_argument("--replace", action="store_true", help="delete what else is in the repository")
    parser.add_argument(
        "--dry-run", action="store_true", help="verify, show files, sizes and card, and send nothing"
    )


def run_push(args: argparse.Namespace) -> int:
    """Verify, then send; or say what would be sent."""
    from preforch_training.publishing.push import describe, make_plan, push

    plan = make_plan(args.path, artifacts=args.artifacts)
    if args.dry_run:
        print(describe(plan, args.repo, public=args.public, branch=args.branch))
        return 0
    commit = push(plan, args.repo, public=args.public, branch=args.branch, replace=args.replace)
    print(f"hf:{args.repo}@{commit}")
    return 0


def add_answers_arguments(parser: argparse.ArgumentParser) -> None:
    """`preforch answers RUN --prompts FILE --format FORMAT --output FOLDER [--policy-name NAME] ...`."""
    parser.add_argument("run", type=Path, metavar="RUN")
    parser.add_argument("--prompts", type=Path, required=True, metavar="FILE", help="the benchmark's own")
    parser.add_argument("--format", choices=ANSWER_FORMATS, required=True)
    parser.add_argument(
        "--output", type=Path, required=True, metavar="FOLDER", help="gets MODEL.json or MODEL.jsonl"
    )
    parser.add_argument("--policy-name", metavar="NAME", help="default: the policy that the run serves")
    parser.add_argument(
        "--weights",
        help="`orchestrator` (default), `uniform`, or objective=number,... of all objectives; a policy that "
        "reads none takes none",
    )
    parser.add_argument("--name", metavar="MODEL", help="what the judge calls it; default: RUN-NAME")
    parser.add_argument(
        "--temperature",
        type=_number_from(0.0, float("inf")),
        metavar="T",
        help="default: the benchmark's for the question, else the run's",
    )
    parser.add_argument("--top-p", type=_number_from(1e-9, 1.0), metavar="P", help="default: the run's")
    parser.add_argument("--max-tokens", type=_count, metavar="N", help="of an answer; default: the run's")
    parser.add_argument("--seed", type=int, metavar="N", help="default: the run's")


def run_answers(args: argparse.Namespace) -> int:
    """Answer a benchmark's questions in its own format."""
    _quiet_libraries()
    from preforch_training.answers.export import Order, export

    order = Order(
        run=args.run,
        prompts=args.prompts,
        format=args.format,
        output=args.output,
        policy=args.policy_name,
        weights=args.weights,
        name=args.name,
        temperature=args.temperature,
        top_p=args.top_p,
        max_tokens=args.max_tokens,
        seed=args.seed,
    )
    print(export(order))
    return 0


def _number_from(low: float, high: float) -> Callable[[str], float]:
    def number(text: str) -> float:
        value = float(text)
        if not (low <= value <= high and value < float("inf")):
            raise argparse.ArgumentTypeError(f"{text}: a number from {low:g} to {high:g} is needed")
        return value

    return number


def _quiet_libraries() -> None:
    """No hub requests for local folders' sake, no fork warnings of tokenizers, errors only from libraries."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # a text file, so that pipes see lines
