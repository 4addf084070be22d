"""`preforch engine-args BUNDLE --policy FOLDER`: for a vLLM server that somebody else starts (Kubernetes).

In:  a bundle and its policy; both are verified, and refused where they do not belong together.
Out: a JSON list, the arguments of Python that `preforch serve` would give a vLLM child of its own, but with
     the address given here. It is printed, and written to `--output`. What starts the engine runs `python3`
     with them.
"""

import argparse
import json
from pathlib import Path

from preforch_models.objectives import explain
from pydantic import ValidationError

from preforch_service.flags import add_flags
from preforch_service.locate import fetched
from preforch_service.settings import ServeSettings

SHARED = ("served_model_name", "tool_call_parser", "reasoning_parser", "engine_args")
"""Settings that `preforch serve` has too, with the same flags."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Bundle and policy are required here; host and port are the engine's and not the gateway's."""
    add = parser.add_argument
    add("path", type=Path, metavar="BUNDLE", help="a bundle folder, or hf:ORG/NAME@COMMIT")
    add("--policy", type=Path, required=True, metavar="FOLDER", help="the policy that the engine serves")
    add("--host", default="127.0.0.1", help="where the engine listens, default 127.0.0.1")
    add("--port", type=int, default=8100, help="default 8100")
    add("--cpu", action="store_true", help="vLLM is its CPU build")
    add("--output", type=Path, metavar="FILE", help="write the list there too")
    add_flags(add, {name: ServeSettings.model_fields[name] for name in SHARED})


def run(args: argparse.Namespace) -> int:
    """Print and write the list. Raises ValueError or OSError."""
    given = {name: value for name, value in vars(args).items() if name in ("path", "policy", *SHARED)}
    try:
        settings = ServeSettings.model_validate(given)
    except ValidationError as error:
        raise ValueError(explain(error)) from error
    listen = ("--host", args.host, "--port", str(args.port))
    arguments = json.dumps(arguments_for(settings, listen=listen, cpu=args.cpu), indent=1)
    print(arguments)
    if args.output is not None:
        args.output.write_text(arguments, encoding="utf-8")
    return 0


def arguments_for(settings: ServeSettings, *, listen: tuple[str, ...], cpu: bool) -> list[str]:
    """Python's arguments for the engine.

    Raises ArtifactError where bundle and policy are not whole or do not match.
    """
    # Help and wrong settings do not need the server.
    from preforch_service.recommendation.active_bundle import read_configured
    from preforch_service.server import engine_command, load_card

    path = fetched(settings.path, policies=False)
    settings = settings.model_copy(update={"path": path})
    bundle = read_configured(settings)
    loaded = load_card(settings, bundle)
    assert loaded is not None, "weights_only is not set"
    card, policy = loaded
    assert policy is not None, "there is no policy_card"
    return engine_command(settings, bundle, card, policy, listen=listen, cpu=cpu).arguments()
