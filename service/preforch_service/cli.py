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
    add("--upstream", metavar="URL", help="a vLLM server that runs already")
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
    add("--precision", choices=["fp32", "int8"], help="of the orchestrator, default fp32; int8: faster, less exact")
    add("--orchestrator-deadline", type=float, metavar="S", help="per prompt; later means fallback weights, default 2")
    add("--orchestrator-queue", type=int, metavar="N", help="requests that may wait for it, default 256")
    add("--batch-tokens", type=int, metavar="N", help="padded tokens of a batch, default 512 on a CPU, 16384 on CUDA")
    add("--cache-entries", type=int, metavar="N", help="recommendations that are kept, default 16384; 0 is off")
    add("--control-tokens", choices=["escape", "reject"], help="what to do with control strings, default escape")
    add("--template-kwarg", dest="template_kwargs", action="append", metavar="KEY", help="users may set it")
    add("--max-body-bytes", type=int, metavar="N", help="default 4 MiB")
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
