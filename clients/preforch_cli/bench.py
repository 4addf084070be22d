"""`preforch bench URL`: a first look at the speed of a gateway, from where the command runs.

In:  a gateway's address, numbers of clients.
Out: for each route and number of clients: requests per second, latency at the 50th, 95th and 99th percentile,
     errors by kind.

How it is measured: `closed_loop`. All prompts differ, so that no recommendation comes from a cache.
"""

import argparse
import json
from collections.abc import Sequence

from preforch_cli.gateway import add_access_arguments, errors_as_ours

NOTE = (
    "p50, p95, p99: milliseconds to a whole answer, of the requests that were answered; this machine and\n"
    "the network included. A first look: one run, no intervals; a p99 of few requests is nearly the slowest."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The gateway, how many clients, how much they ask."""
    parser.add_argument("url", metavar="URL", help="address of the gateway, such as http://127.0.0.1:8000")
    parser.add_argument(
        "--clients",
        type=int,
        nargs="+",
        default=[1, 4, 16],
        metavar="N",
        help="that ask at the same time (default: 1 4 16)",
    )
    parser.add_argument(
        "--requests", type=int, default=128, metavar="N", help="for each number of clients (default: 128)"
    )
    parser.add_argument(
        "--max-tokens", type=int, default=32, metavar="N", help="of an answer of /generate (default: 32)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON, latencies in milliseconds")
    add_access_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Measure, then print. Exit code 1 where nothing at all was answered."""
    # Late, as in `gateway`: the client needs httpx.
    from preforch_cli.closed_loop import Load, measure

    if min(*args.clients, args.requests, args.max_tokens) < 1:
        raise ValueError("--clients, --requests and --max-tokens must be 1 or more")
    load = Load(
        url=args.url,
        api_key=args.api_key,
        timeout=args.timeout,
        requests=args.requests,
        max_tokens=args.max_tokens,
    )
    with errors_as_ours():
        measured = measure(load, args.clients)
    rows = [one.row() for one in measured]
    print(json.dumps(rows, indent=2) if args.json else f"{table(rows)}\n\n{NOTE}")
    return 0 if any(one.latencies for one in measured) else 1


def table(rows: Sequence[dict[str, object]]) -> str:
    """Aligned columns, numbers to the right."""
    cells = [[*rows[0]], *([_cell(value) for value in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join(
            [
                row[0].ljust(widths[0]),
                *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)),
            ]
        )
        for row in cells
    ]
    return "\n".join(lines)


def _cell(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{number} {name}" for name, number in value.items()) or "none"
    return "-" if value is None else str(value)
