"""What `weights`, `chat` and `bench` share: the arguments that name a gateway, and the client for it.

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
    """`--url`, `--max-retries` and those of `add_access_arguments`; the address defaults to PREFORCH_URL."""
    parser.add_argument(
        "--url",
        default=os.environ.get("PREFORCH_URL", "http://127.0.0.1:8000"),
        help="address of the gateway (default: $PREFORCH_URL or http://127.0.0.1:8000)",
    )
    parser.add_argument(
        "--max-retries",
        type=int,
        default=2,
        metavar="N",
        help="tries after the first where there is no connection, or the gateway is busy (default: 2)",
    )
    add_access_arguments(parser)


def add_access_arguments(parser: argparse.ArgumentParser) -> None:
    """`--api-key`, which defaults to PREFORCH_API_KEY, and `--timeout`."""
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
    """A client for the gateway that the arguments name. Its errors leave as those of `errors_as_ours`."""
    from preforch_client import Client

    with (
        errors_as_ours(),
        Client(args.url, api_key=args.api_key, timeout=args.timeout, max_retries=args.max_retries) as client,
    ):
        yield client


@contextmanager
def errors_as_ours() -> Iterator[None]:
    """Errors of a client leave as ValueError (what was sent) or CommandFailed (all else)."""
    from preforch_client import BadRequest, PreferenceError

    try:
        yield
    except BadRequest:
        raise
    except PreferenceError as error:
        raise CommandFailed(str(error)) from error
