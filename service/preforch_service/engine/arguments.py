"""`preforch engine-args BUNDLE --policy FOLDER`: for a vLLM server that somebody else starts (Kubernetes).

In:  a bundle and its policy; both are verified, and refused where they do not belong together.
Out: a JSON list, the arguments of Python that `preforch serve` would give a vLLM child of its own, but with the address
     given here. It is printed, and written to `--output`. What starts the engine runs `python3` with them.
"""

import argparse
import json
from pathlib import Path

from preforch_models.objectives import explain
from pydantic import ValidationError

from preforch_service.recommendation.active_bundle import read_configured
from preforch_service.server import engine_command, load_card
from preforch_service.settings import ServeSettings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command; those that `preforch serve` has too mean the same."""
    add = parser.add_argument
    add("path", type=Path, metavar="BUNDLE", help="a bundle folder")
    add("--policy", type=Path, required=True, metavar="FOLDER", help="the policy that the engine serves")
    add("--served-model-name", metavar="NAME", help="default: the name on the policy card")
    add("--host", default="127.0.0.1", help="where the engine listens, default 127.0.0.1")
    add("--port", type=int, default=8100, help="default 8100")
    add("--cpu", action="store_true", help="vLLM is its CPU build")
    add(
        "--engine-arg",
        dest="engine_args",
        action="append",
        default=[],
        metavar="ARG",
        help="to vLLM, comes last",
    )
    add("--output", type=Path, metavar="FILE", help="write the list there too")


def run(args: argparse.Namespace) -> int:
    """Print and write the list. Raises ValueError or OSError."""
    given = {"path": args.path, "policy": args.policy, "served_model_name": args.served_model_name}
    try:
        settings = ServeSettings.model_validate({**given, "engine_args": args.engine_args})
    except ValidationError as error:
        raise ValueError(explain(error)) from error
    listen = ("--host", args.host, "--port", str(args.port))
    arguments = json.dumps(arguments_for(settings, listen=listen, cpu=args.cpu), indent=1)
    print(arguments)
    if args.output is not None:
        args.output.write_text(arguments, encoding="utf-8")
    return 0


def arguments_for(settings: ServeSettings, *, listen: tuple[str, ...], cpu: bool) -> list[str]:
    """Python's arguments for the engine. Raises ArtifactError where bundle and policy are not whole or do not match."""
    bundle = read_configured(settings)
    loaded = load_card(settings, bundle)
    assert loaded is not None, "weights_only is not set"
    card, policy = loaded
    assert policy is not None, "there is no policy_card"
    return engine_command(settings, bundle, card, policy, listen=listen, cpu=cpu).arguments()
