"""`preforch card instruction`: arguments in, a policy folder and how to serve it out."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`preforch card instruction --model FOLDER --objectives BUNDLE|NAME=TEXT ... --output FOLDER ...`."""
    add = parser.add_argument
    add("conditioning", choices=["instruction"], help="the weights in words, for any instruct model")
    add("--model", type=Path, required=True, metavar="FOLDER", help="checkpoint with a chat template")
    add(
        "--objectives",
        nargs="+",
        required=True,
        metavar="BUNDLE|NAME=TEXT",
        help="the bundle that it will be served with; or each of its objectives, in order, with what the "
        "model is told of it",
    )
    add("--output", type=Path, required=True, metavar="FOLDER", help="the policy folder to make")
    add("--name", help="what it is served as; default: the name of the model's folder")
    add(
        "--max-model-len",
        type=int,
        metavar="N",
        help="tokens of prompt and answer together; default: all that the model's config.json allows",
    )


def run(args: argparse.Namespace) -> int:
    """Write the folder. Raises ValueError or OSError."""
    # Help does not need the model libraries.
    from preforch_training.untrained.policy import Untrained, describe, read_descriptions, write_policy

    made = Untrained(
        model=args.model,
        descriptions=read_descriptions(args.objectives),
        name=args.name or args.model.resolve().name,
        max_model_len=args.max_model_len,
    )
    place = write_policy(made, args.output)
    print(describe(args.output, place))
    return 0
