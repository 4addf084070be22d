"""`preforch plan CONFIG`: arguments in, the plan on standard output."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`preforch plan CONFIG [--set KEY=VALUE] [--nproc N] [--gpu-gib G] [--tflops R] ...`."""
    parser.add_argument("config", type=Path, help="TOML file of the run")
    parser.add_argument("--set", action="append", default=[], dest="settings", metavar="KEY=VALUE")
    parser.add_argument("--nproc", type=_count, default=1, metavar="N", help="GPUs, default 1")
    parser.add_argument(
        "--gpu-gib", type=_amount, default=80.0, metavar="G", help="memory of a GPU, default 80"
    )
    parser.add_argument(
        "--tflops",
        type=_amount,
        default=150.0,
        metavar="RATE",
        help="10^12 FLOPs a second that a GPU does in training, 30 to 50%% of its data sheet; default 150",
    )
    parser.add_argument(
        "--pairs",
        type=_count,
        default=100_000,
        metavar="N",
        help="pairs of each objective and overall, where the run has no data yet; default 100000",
    )
    parser.add_argument(
        "--row-tokens",
        type=_count,
        metavar="N",
        help="mean tokens of a prompt with its response; default: as many as each stage allows",
    )
    parser.add_argument(
        "--config-of",
        action="append",
        default=[],
        metavar="ID=FOLDER",
        help="folder with the config.json of a model that the hub does not give here",
    )


def run(args: argparse.Namespace) -> int:
    """Print the plan. Raises ValueError for a config that is wrong."""
    from preforch_training.config import read_config

    config = read_config(args.config, settings=tuple(args.settings))
    # After the configuration: one that is wrong must not wait for torch.
    from preforch_training.plan.machine import hub_reachable
    from preforch_training.plan.report import describe
    from preforch_training.plan.tables import Question

    question = Question(
        nproc=args.nproc,
        gpu_gib=args.gpu_gib,
        tflops=args.tflops,
        pairs=args.pairs,
        row_tokens=args.row_tokens,
        configs=dict(map(_named_folder, args.config_of)),
    )
    print(describe(config, question, title=f"Plan of {args.config.name}", reachable=hub_reachable()))
    return 0


def _named_folder(text: str) -> tuple[str, Path]:
    name, separator, folder = text.partition("=")
    if not separator or not name or not folder:
        raise ValueError(f"--config-of {text!r}: expected ID=FOLDER")
    return name, Path(folder)


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text}: at least 1 is needed")
    return number


def _amount(text: str) -> float:
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text}: a number above 0 is needed")
    return number
