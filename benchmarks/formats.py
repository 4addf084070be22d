"""Chat, Responses, Messages: what the gateway costs in front of vLLM's own route of each format.

In:  a run folder with a bundle and a policy; perhaps another checkout, whose gateway answers chats beside
     this one's.
Out: Markdown tables on stdout: the gateway's CPU time a request, and what it adds to the time to the first
     byte, each by chat's with 95% intervals over rounds.

    python benchmarks/formats.py runs/demo [--before CHECKOUT]

All arms have the same weights from the user, greedy answers and one engine, so that every format must bring
the same number of tokens.
"""

import argparse
import contextlib
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gateway import DISTRIBUTIONS, start_engine, start_gateway
from gateway_tables import Measured, first_ms, front_ms, per_round
from load import Load, Plan, load_generator
from preforch_models.bundle import read_bundle
from preforch_models.policy_card import read_policy_card
from preforch_models.run_folder import find_policy
from preforch_models.weights import Weights
from preforch_service.locate import find_bundle
from preforch_service.recommendation.bounds import announced
from preforch_training.statistics.markdown import table
from rounds import mean, ratio
from servers import Server, machine
from texts import NewPrompts

PATHS = {"chat": "/v1/chat/completions", "responses": "/v1/responses", "messages": "/v1/messages"}
MODES = ("whole", "stream")
BEFORE = "chat, the other checkout"


@dataclass(frozen=True)
class Arm:
    """A format, by way of a gateway or not."""

    name: str
    format: str
    server: Server


@dataclass(frozen=True)
class Bench:
    """`bare` and `gateway` have one arm for each format, in the order of PATHS; `gateway` perhaps another
    one."""

    engine: Server
    bare: list[Arm]
    gateway: list[Arm]
    model: str
    weights: Weights


Found = dict[tuple[str, int], dict[Arm, list[Measured]]]
"""By mode and clients."""


def main(argv: Sequence[str] | None = None) -> None:
    """Print the tables, after all rounds."""
    options = parse(argv)
    about = machine(*DISTRIBUTIONS)
    with (
        tempfile.TemporaryDirectory() as folder,
        load_generator() as load,
        started(options, Path(folder)) as bench,
    ):
        found = measure(bench, load, options)
        print("\n".join([about, describe(options), "", *tables(bench, found)]))


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="The gateway's cost by format, against chat's.")
    add = parser.add_argument
    add("run", type=Path, help="folder of a run with a bundle and a policy")
    add("--before", type=Path, help="checkout of another version: its gateway answers chats, too")
    add("--rounds", type=int, default=7, help="of all arms, in turns; at least 2")
    add("--clients", type=int, nargs="+", default=[1, 16], help="concurrent clients")
    add("--requests", type=int, default=128, help="per arm and round")
    add("--max-tokens", type=int, default=64, help="of every answer, at most")
    add("--seed", type=int, default=0, help="of the prompts")
    options = parser.parse_args(argv)
    if options.rounds < 2:
        parser.error(f"--rounds is {options.rounds}; an interval needs at least 2")
    return options


@contextlib.contextmanager
def started(options: argparse.Namespace, folder: Path) -> Iterator[Bench]:
    """Engine and gateways; all on TCP."""
    bundle, policy = read_bundle(find_bundle(options.run)), find_policy(options.run)
    card, info = read_policy_card(policy), bundle.info
    _, weights = announced(info.fallback, info.objectives, info.context.units)
    with contextlib.ExitStack() as stack:
        engine = stack.enter_context(start_engine(policy, card, weights, [], folder))
        gateway = stack.enter_context(start_gateway(bundle, policy, engine, [], folder))
        bare, arms = ([Arm(name, name, server) for name in PATHS] for server in (engine, gateway))
        if options.before is not None:
            before = start_gateway(bundle, policy, engine, [], folder, checkout=options.before)
            arms.append(Arm(BEFORE, "chat", stack.enter_context(before)))
        yield Bench(engine, bare, arms, card.name, weights)


def body(bench: Bench, arm: Arm, prompt: str, *, max_tokens: int, stream: bool) -> dict[str, Any]:
    """One request, greedy."""
    weights: dict[str, Any] = {"preference_weights": bench.weights}
    if arm.server is bench.engine:
        weights = {"chat_template_kwargs": {"weights": bench.weights}}
    fixed = {"model": bench.model, "temperature": 0, "stream": stream, **weights}
    messages = [{"role": "user", "content": prompt}]
    if arm.format == "responses":
        return {"input": messages, "max_output_tokens": max_tokens, **fixed}
    usage = {"stream_options": {"include_usage": True}} if stream and arm.format == "chat" else {}
    return {"messages": messages, "max_tokens": max_tokens, **usage, **fixed}


def measure(bench: Bench, load: Load, options: argparse.Namespace) -> Found:
    """Every arm once per cell and round; a round starts with the next arm, so that none is always first."""
    prompts, arms = NewPrompts(options.seed), [*bench.bare, *bench.gateway]
    found: Found = {}
    for number in range(-1, options.rounds):
        turn = number % len(arms)
        for mode in MODES:
            for clients in options.clients:
                new = prompts.draw(options.requests)
                cell = {
                    arm: one(bench, load, arm, new, mode, clients, options.max_tokens)
                    for arm in arms[turn:] + arms[:turn]
                }
                lengths = {arm.name: measured.result.tokens for arm, measured in cell.items()}
                if len(set(lengths.values())) != 1:
                    raise ValueError(f"{mode}: greedy answers differ in tokens: {lengths}")
                # The first round of all warms up.
                for arm, measured in cell.items() if number >= 0 else ():
                    found.setdefault((mode, clients), {}).setdefault(arm, []).append(measured)
        print(f"round {number + 1} of {options.rounds}", file=sys.stderr, flush=True)
    return found


def one(
    bench: Bench, load: Load, arm: Arm, prompts: Sequence[str], mode: str, clients: int, max_tokens: int
) -> Measured:
    """One arm in one cell."""
    stream = mode == "stream"
    bodies = tuple(body(bench, arm, prompt, max_tokens=max_tokens, stream=stream) for prompt in prompts)
    before = arm.server.cpu(), bench.engine.cpu()
    result = load(Plan(url=arm.server.url + PATHS[arm.format], bodies=bodies, clients=clients))
    front, engine = arm.server.cpu() - before[0], bench.engine.cpu() - before[1]
    return Measured(result=result, front_cpu=front, engine_cpu=engine)


def tables(bench: Bench, found: Found) -> list[str]:
    """CPU time and time to the first byte."""
    header = [
        *("mode", "clients", "format", "gateway, CPU ms a request [95%]", "by chat's [95%]"),
        *("added to the first byte, ms [95%]", "more than chat's, ms [95%]"),
    ]
    rows = []
    for (mode, clients), by_arm in found.items():
        chat, *_ = bench.gateway
        added = {arm: added_ms(bench, by_arm, arm) for arm in bench.gateway}
        for arm in bench.gateway:
            cpu, by = per_round(by_arm[arm], front_ms), per_round(by_arm[chat], front_ms)
            against = ["", ""] if arm is chat else [ratio(cpu, by), mean(added[arm] - added[chat])]
            rows.append([mode, clients, arm.name, mean(cpu), against[0], mean(added[arm]), against[1]])
    return [
        *table(header, rows).splitlines(),
        "",
        "Intervals are 95% t intervals over rounds; ratios are geometric means. "
        "The first byte of a whole answer comes with its last.",
    ]


def added_ms(bench: Bench, by_arm: dict[Arm, list[Measured]], arm: Arm) -> np.ndarray:
    """Median time to the first byte over that of vLLM's own route of the format, of every round."""
    (bare,) = [other for other in bench.bare if other.format == arm.format]
    added: np.ndarray = per_round(by_arm[arm], first_ms) - per_round(by_arm[bare], first_ms)
    return added


def describe(options: argparse.Namespace) -> str:
    """The load."""
    return (
        f"Load: {options.rounds} rounds; {options.requests} requests per arm and round, "
        f"{options.max_tokens} tokens at most, greedy; prompts of the demo world, all different, "
        f"seed {options.seed}; weights from the user. One engine for all, prefix cache off."
    )


if __name__ == "__main__":
    main()
