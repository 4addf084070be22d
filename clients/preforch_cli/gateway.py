"""What `weights` and `chat` share: the arguments that name a gateway, and the client for it.

The client is imported late: it needs httpx, and `--help` does not.
"""

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from preforch_cli.errors import CommandFailed

if TYPE_CHECKING:
    from preforch_client import Client


def add_gateway_arguments(parser: argparse.ArgumentParser) -> None:
    """`--url`, `--api-key`, `--timeout`; the first two default to PREFORCH_URL and PREFORCH_API_KEY."""
    parser.add_argument(
        "--url",
        default=os.environ.get("PREFORCH_URL", "http://127.0.0.1:8000"),
        help="address of the gateway (default: $PREFORCH_URL or http://127.0.0.1:8000)",
    )
    parser.add_argument(
        "--api-key", default=os.environ.get("PREFORCH_API_KEY"), help="default: $PREFORCH_API_KEY"
    )
    parser.add_argument(
        "--timeout",
        type=float,
        default=120.0,
        metavar="SECONDS",
        help="longest wait for bytes (default: 120)",
    )


@contextmanager
def gateway_client(args: argparse.Namespace) -> Iterator["Client"]:
    """A client for the gateway that the arguments name. Its errors leave as ValueError or CommandFailed."""
    from preforch_client import BadRequest, Client, PreferenceError

    try:
        with Client(args.url, api_key=args.api_key, timeout=args.timeout) as client:
            yield client
    except BadRequest:
        raise
    except PreferenceError as error:
        raise CommandFailed(str(error)) from error
