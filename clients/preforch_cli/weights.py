"""`preforch weights PROMPT`: the recommended weights of one prompt, as a table with bars or as JSON."""

import argparse
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

from preforch_cli.gateway import add_gateway_arguments, gateway_client

if TYPE_CHECKING:
    from preforch_client import Recommendation

BAR_WIDTH = 40


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The prompt, how to print, and which gateway to ask."""
    parser.add_argument("prompt")
    parser.add_argument("--json", action="store_true", help="print the gateway's answer as JSON")
    add_gateway_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Print a table with bars, or JSON."""
    with gateway_client(args) as client:
        recommendation = client.weights(args.prompt)
    if args.json:
        print(recommendation.model_dump_json(indent=2))
    else:
        print(weights_table(recommendation.weights, bar=bar_character(sys.stdout.encoding)))
        print(origin(recommendation))
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
