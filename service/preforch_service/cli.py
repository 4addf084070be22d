"""`preforch serve`: arguments in, exit code out.

2: wrong input, said in one line. 1: the engine cannot start.
"""

import argparse
import os
import sys
from pathlib import Path

from preforch_models.objectives import explain
from pydantic import ValidationError

from preforch_service.flags import add_flags
from preforch_service.keys import read_keys
from preforch_service.locate import fetched
from preforch_service.recommendation.presets import read_presets
from preforch_service.requests.limits import RequestLimits
from preforch_service.settings import ServeSettings
from preforch_service.telemetry.logs import configure_logging


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare a flag for each field of ServeSettings; keys and presets are read from files."""
    limits = RequestLimits.model_fields
    own = {name: field for name, field in ServeSettings.model_fields.items() if name not in limits}
    del own["keys"]
    presets = own.pop("presets")
    add_flags(parser.add_argument, own)
    parser.add_argument(
        "--presets", type=Path, metavar="FILE", default=argparse.SUPPRESS, help=presets.description
    )
    parser.add_argument(
        "--api-keys",
        type=Path,
        metavar="FILE",
        default=argparse.SUPPRESS,
        help="TOML that `preforch keygen` writes; see also PREFORCH_API_KEYS",
    )
    add_flags(parser.add_argument_group("limits of one request").add_argument, limits)


def run(args: argparse.Namespace) -> int:
    """Serve until a signal comes. Returns the exit code."""
    known = {name: value for name, value in vars(args).items() if name in ServeSettings.model_fields}
    try:
        keys = read_keys(getattr(args, "api_keys", None), os.environ)
        presets = read_presets(known["presets"]) if "presets" in known else {}
        settings = ServeSettings.model_validate({**known, "keys": keys, "presets": presets})
        configure_logging(settings.log_format, sys.stderr)
        # After all other settings were found right: it can take long.
        settings = fetch(settings)
        # Help and wrong settings need neither FastAPI nor ONNX Runtime, which take most of the time to start.
        from preforch_service.server import serve

        return serve(settings)
    except ValidationError as error:
        return _wrong(explain(error))
    except (ValueError, OSError) as error:
        return _wrong(str(error))


def fetch(settings: ServeSettings) -> ServeSettings:
    """The settings with a folder of this machine in place of a repository of a hub."""
    engine = not settings.weights_only and not settings.upstreams and settings.policy is None
    return settings.model_copy(update={"path": fetched(settings.path, policies=engine)})


def _wrong(message: str) -> int:
    print(f"preforch serve: {' '.join(message.split())}", file=sys.stderr)
    return 2
