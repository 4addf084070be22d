"""`preforch serve`: arguments in, exit code out. 2: wrong input, said in one line. 1: the engine cannot start."""

import argparse
import logging
import sys
from pathlib import Path

from preforch_models.objectives import explain
from pydantic import ValidationError

from preforch_service.server import serve
from preforch_service.settings import ServeSettings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments; what is left out has the default of ServeSettings."""
    parser.argument_default = argparse.SUPPRESS
    add = parser.add_argument
    add("path", type=Path, metavar="RUN|BUNDLE", help="a run folder; or a bundle, with --upstream or --weights-only")
    add("--upstream", dest="upstreams", action="append", metavar="URL", help="a vLLM server that runs already; repeat")
    add("--policy-card", type=Path, metavar="FILE", help="preference.json of the policy behind --upstream")
    add("--weights-only", action="store_true", help="recommend weights, serve no language model")
    add("--policy", type=Path, metavar="FOLDER", help="the policy to serve, where the run holds several")
    add("--served-model-name", metavar="NAME", help="default: the name on the policy card")
    add("--host", help="default 127.0.0.1")
    add("--port", type=int, help="default 8000; 0 takes a free one")
    add("--metrics-port", type=int, help="default --port + 1, none where --port is 0; 0 is off")
    add("--no-auth", action="store_true", help="serve other machines without API keys")
    add("--allowed-host", dest="allowed_hosts", action="append", metavar="NAME", help="Host header to answer; '*': any")
    add("--device", choices=["auto", "cpu", "cuda"], help="where the orchestrator runs, default auto")
    add("--orchestrator-threads", type=int, metavar="N", help="default 2")
    add("--orchestrator-deadline", type=float, metavar="S", help="later means fallback weights, default 2")
    add("--control-tokens", choices=["escape", "reject"], help="what to do with control strings, default escape")
    add("--template-kwarg", dest="template_kwargs", action="append", metavar="KEY", help="users may set it")
    add("--max-body-bytes", type=int, metavar="N", help="default 4 MiB")
    add("--max-running", type=int, metavar="N", help="generations in the engines at once, default 256")
    add("--max-waiting", type=int, metavar="N", help="generations in line for a slot, default 512; more are a 429")
    add("--max-weights", type=int, metavar="N", help="requests to /weights at once, default 256; more are a 429")
    add("--first-byte-timeout", type=float, metavar="S", help="for the engine to begin an answer, default 600")
    add("--idle-timeout", type=float, metavar="S", help="between two pieces of an answer, default 120")
    add("--health-timeout", type=float, metavar="S", help="for a health check of the engine, default 10")
    add("--hang-timeout", type=float, metavar="S", help="our engine is restarted when it hangs longer, default 120")
    add("--drain-timeout", type=float, metavar="S", help="for running answers after SIGTERM, default 30")
    add("--engine-arg", dest="engine_args", action="append", metavar="ARG", help="to vLLM: --engine-arg=--flag")
    add("--engine-log", type=Path, metavar="FILE", help="default: a temporary file, shown when the engine fails")


def run(args: argparse.Namespace) -> int:
    """Serve. Returns the exit code."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    known = {name: value for name, value in vars(args).items() if name in ServeSettings.model_fields}
    try:
        return serve(ServeSettings.model_validate(known))
    except ValidationError as error:
        return _wrong(explain(error))
    except (ValueError, OSError) as error:
        return _wrong(str(error))


def _wrong(message: str) -> int:
    print(f"preforch serve: {' '.join(message.split())}", file=sys.stderr)
    return 2
