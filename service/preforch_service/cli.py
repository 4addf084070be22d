"""`preforch serve`: arguments in, exit code out. 2: wrong input, said in one line. 1: the engine cannot start."""

import argparse
import os
import sys
from pathlib import Path

from preforch_models.objectives import explain
from pydantic import ValidationError

from preforch_service.keys import read_keys
from preforch_service.requests.limits import RequestLimits
from preforch_service.server import serve
from preforch_service.settings import ServeSettings
from preforch_service.telemetry.logs import configure_logging


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments; what is left out has the default of ServeSettings."""
    parser.argument_default = argparse.SUPPRESS
    add = parser.add_argument
    add(
        "path",
        type=Path,
        metavar="RUN|BUNDLE",
        help="a run folder; or a bundle, with --upstream or --weights-only",
    )
    add(
        "--upstream",
        dest="upstreams",
        action="append",
        metavar="URL",
        help="a vLLM server that runs already; repeat",
    )
    add("--policy-card", type=Path, metavar="FILE", help="preference.json of the policy behind --upstream")
    add("--weights-only", action="store_true", help="recommend weights, serve no language model")
    add("--policy-name", metavar="NAME", help="a policy of the run, default: the one that its config serves")
    add("--policy", type=Path, metavar="FOLDER", help="a policy folder, in place of one of the run's")
    add("--served-model-name", metavar="NAME", help="default: the name on the policy card")
    add("--host", help="default 127.0.0.1")
    add("--port", type=int, help="default 8000; 0 takes a free one")
    add("--metrics-port", type=int, help="default --port + 1, none where --port is 0; 0 is off")
    add("--metrics-host", help="default 127.0.0.1; metrics want no key, so open them to Prometheus alone")
    add(
        "--api-keys",
        type=Path,
        metavar="FILE",
        help="TOML that `preforch keygen` writes; see also PREFORCH_API_KEYS",
    )
    add("--no-auth", action="store_true", help="serve other machines without API keys")
    add(
        "--cors-origin",
        dest="cors_origins",
        action="append",
        metavar="URL",
        help="pages of it may call; '*': any",
    )
    add(
        "--allowed-host",
        dest="allowed_hosts",
        action="append",
        metavar="NAME",
        help="Host header to answer; '*': any",
    )
    add("--device", choices=["auto", "cpu", "cuda"], help="where the orchestrator runs, default auto")
    add("--orchestrator-threads", type=int, metavar="N", help="default 2")
    add(
        "--precision",
        choices=["fp32", "int8"],
        help="of the orchestrator, default fp32; int8: faster, less exact",
    )
    add(
        "--orchestrator-deadline",
        type=float,
        metavar="S",
        help="per prompt; later means fallback weights, default 2",
    )
    add("--orchestrator-queue", type=int, metavar="N", help="requests that may wait for it, default 256")
    add(
        "--batch-tokens",
        type=int,
        metavar="N",
        help="padded tokens of a batch, default 512 on a CPU, 16384 on CUDA",
    )
    add(
        "--cache-entries",
        type=int,
        metavar="N",
        help="recommendations that are kept, default 16384; 0 is off",
    )
    add(
        "--control-tokens",
        choices=["escape", "reject"],
        help="what to do with control strings, default escape",
    )
    add("--template-kwarg", dest="template_kwargs", action="append", metavar="KEY", help="users may set it")
    add("--log-format", choices=["text", "json"], help="of the lines on stderr, default text")
    add("--access-log", action=argparse.BooleanOptionalAction, help="one line per request, default on")
    add("--otlp-endpoint", metavar="URL", help="OpenTelemetry collector to send traces to, default none")
    for name, field in RequestLimits.model_fields.items():
        kind = float if field.annotation is float else int
        about = (
            f"{field.description or ''}{', default ' + str(field.default) if field.default else ''}".lstrip(
                ", "
            )
        )
        add(f"--{name.replace('_', '-')}", type=kind, metavar="N", help=about)
    add("--max-running", type=int, metavar="N", help="generations in the engines at once, default 256")
    add(
        "--max-waiting",
        type=int,
        metavar="N",
        help="generations in line for a slot, default 512; more are a 429",
    )
    add(
        "--max-weights",
        type=int,
        metavar="N",
        help="requests to /weights at once, default 64; more are a 429",
    )
    add(
        "--first-byte-timeout", type=float, metavar="S", help="for the engine to begin an answer, default 600"
    )
    add(
        "--idle-timeout",
        type=float,
        metavar="S",
        help="between two pieces of an answer, on either side; default 120",
    )
    add("--health-timeout", type=float, metavar="S", help="for a health check of the engine, default 10")
    add(
        "--hang-timeout",
        type=float,
        metavar="S",
        help="our engine is restarted when it hangs longer, default 600",
    )
    add("--drain-timeout", type=float, metavar="S", help="for running answers after SIGTERM, default 30")
    add(
        "--engine-arg",
        dest="engine_args",
        action="append",
        metavar="ARG",
        help="to vLLM: --engine-arg=--flag",
    )
    add(
        "--engine-log",
        type=Path,
        metavar="FILE",
        help="kept small; default: a temporary file, shown when it fails",
    )


def run(args: argparse.Namespace) -> int:
    """Serve. Returns the exit code."""
    known = {name: value for name, value in vars(args).items() if name in ServeSettings.model_fields}
    try:
        keys = read_keys(getattr(args, "api_keys", None), os.environ)
        settings = ServeSettings.model_validate({**known, "keys": keys})
        configure_logging(settings.log_format, sys.stderr)
        return serve(settings)
    except ValidationError as error:
        return _wrong(explain(error))
    except (ValueError, OSError) as error:
        return _wrong(str(error))


def _wrong(message: str) -> int:
    print(f"preforch serve: {' '.join(message.split())}", file=sys.stderr)
    return 2
