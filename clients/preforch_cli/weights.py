"""`preforch weights PROMPT`: the recommended weights of one prompt, as a table with bars or as JSON.

`preforch weights --file FILE`: those of all its lines, see `bulk_weights`.
"""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from preforch_cli.gateway import add_gateway_arguments, gateway_client
from preforch_cli.prompt_lines import FORMATS

if TYPE_CHECKING:
    from preforch_client import Recommendation

BAR_WIDTH = 40


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The prompt or the file, how to print, and which gateway to ask."""
    parser.add_argument("prompt", nargs="?", help="weigh this; or --file")
    parser.add_argument("--json", action="store_true", help="print the gateway's answer as JSON")
    _add_bulk_arguments(parser.add_argument_group("many prompts"))
    add_gateway_arguments(parser)


def _add_bulk_arguments(group: argparse._ArgumentGroup) -> None:
    """What goes with `--file`; the defaults are those of `BulkOptions`."""
    group.add_argument(
        "--file",
        metavar="FILE",
        help="weigh each line of this file, - for standard input; writes a JSON line for each",
    )
    group.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="write there, and continue what is there already (default: standard output)",
    )
    group.add_argument(
        "--format",
        choices=FORMATS,
        help="a line is a prompt, or JSON with prompt or messages (default: jsonl for *.jsonl, else text)",
    )
    group.add_argument("--batch", type=int, metavar="N", help="lines in a request, at most (default: 256)")
    group.add_argument(
        "--bad-lines",
        choices=("stop", "write"),
        help="stop at a line that cannot be weighed, or write it as an error and go on (default: stop)",
    )
    group.add_argument(
        "--patience",
        type=float,
        metavar="SECONDS",
        help="longest wait for a gateway that is away or busy (default: 600)",
    )


BULK_OPTIONS = ("out", "format", "batch", "bad_lines", "patience")


def run(args: argparse.Namespace) -> int:
    """Print a table with bars, or JSON; or weigh the lines of a file."""
    given = {name: getattr(args, name) for name in BULK_OPTIONS if getattr(args, name) is not None}
    if (args.prompt is None) == (args.file is None):
        raise ValueError("give a prompt, or --file FILE with a prompt on each line: one of the two")
    if args.file is not None:
        return _weigh_file(args, given)
    if given:
        raise ValueError(f"--{next(iter(given)).replace('_', '-')} goes with --file")
    with gateway_client(args) as client:
        recommendation = client.weights(args.prompt)
    if args.json:
        print(recommendation.model_dump_json(indent=2))
    else:
        print(weights_table(recommendation.weights, bar=bar_character(sys.stdout.encoding)))
        print(origin(recommendation))
    return 0


def _weigh_file(args: argparse.Namespace, given: dict[str, Any]) -> int:
    # Late, as the client in `gateway`.
    from preforch_cli.bulk_weights import BulkOptions, weigh_file

    if args.json:
        raise ValueError("--json goes with a prompt; --file always writes JSON lines")
    options = BulkOptions(args.file, **given)
    with gateway_client(args) as client:
        weigh_file(client, options)
    return 0


def weights_table(weights: Mapping[str, float], *, bar: str) -> str:
    """One aligned line per objective: name, weight, bar."""
    width = max(map(len, weights), default=0)
    lines = [
        f"{name:<{width}}  {value:.2f}  {bar * round(value * BAR_WIDTH)}" for name, value in weights.items()
    ]
    return "\n".join(line.rstrip() for line in lines)


def bar_character(encoding: str | None) -> str:
    """A block where the terminal can show one."""
    try:
        "█".encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return "#"
    return "█"


def origin(recommendation: "Recommendation") -> str:
    """One line on where the weights came from."""
    facts = [f"source {recommendation.source}"]
    if recommendation.confidence is not None:
        facts.append(f"confidence {recommendation.confidence:.2f}")
    if recommendation.entropy is not None:
        facts.append(f"entropy {recommendation.entropy:.2f} nats")
    if recommendation.bundle:
        facts.append(f"bundle {recommendation.bundle[:12]}")
    return ", ".join(facts)
