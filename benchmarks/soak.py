"""Mixed load on a real gateway with a real engine, and a verdict: answers, weights, leaks.

In:  a run folder (bundle and policy; read only). Out: a Markdown table on stdout; exit code 1 when something
     is off.

    python benchmarks/soak.py runs/demo --minutes 10

Clients of all kinds run side by side; the bundle is replaced by another one (SIGHUP) every `--reload-every`
seconds; the engine is killed once, half-way; at the end the gateway is drained (SIGTERM) while streams run.
"""

import argparse
import asyncio
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import httpx
import psutil
from preforch_models.bundle import BUNDLE_FILE, read_bundle
from preforch_models.manifest import read_manifest, write_manifest
from preforch_models.policy_card import read_policy_card
from preforch_models.run_folder import RUN_FILE, find_policy
from soak_load import Clients, Rendered, Tally
from tokenizers import Tokenizer

SAMPLE_SECONDS = 5.0
BUNDLES = ("bundle-a", "bundle-b")
WARM_UP = 0.2
RECOVERY_SECONDS = 300.0
RSS_TOLERANCE = 0.05
FD_TOLERANCE = 5
DRAIN_SECONDS = 1.0


@dataclass(frozen=True)
class Sample:
    """The gateway process at one moment."""

    seconds: float
    rss: int
    fds: int
    sockets: int
    threads: int


def third(samples: Sequence[Sample], value: Callable[[Sample], int], *, last: bool) -> float:
    """The median over the first or the last third of the time after the warm-up."""
    after = samples[int(len(samples) * WARM_UP) :]
    size = max(1, len(after) // 3)
    return median(map(value, after[-size:] if last else after[:size]))


def faults(tally: Tally, samples: Sequence[Sample], *, exit_code: int | None) -> list[str]:
    """Everything that is off; empty when the gateway has passed."""
    found = [f"unanswered {what}" for what in tally.unanswered]
    found += [f"error without cause {what}" for what in tally.causeless]
    found += [f"wrong weights {what}" for what in tally.wrong_weights]
    if not tally.weights_checked:
        found.append("no weights were checked")
    if exit_code != 0:
        found.append(f"exit code {exit_code} after SIGTERM")
    first, last = (third(samples, lambda s: s.rss, last=last) for last in (False, True))
    if last > first * (1 + RSS_TOLERANCE):
        found.append(f"memory grew from {first / 2**20:.1f} to {last / 2**20:.1f} MiB")
    for name, value in (("descriptors", lambda s: s.fds), ("threads", lambda s: s.threads)):
        first, last = (third(samples, value, last=last) for last in (False, True))
        if last > first + FD_TOLERANCE:
            found.append(f"{name} grew from {first:.0f} to {last:.0f}")
    return found


@dataclass
class Gateway:
    """The process under test."""

    process: subprocess.Popen[str]
    url: str
    run: Path

    def sample(self, seconds: float) -> Sample:
        """Its memory, descriptors, sockets and threads now."""
        found = psutil.Process(self.process.pid)
        sockets = sum(1 for entry in Path(f"/proc/{found.pid}/fd").iterdir() if _is_socket(entry))
        return Sample(seconds, found.memory_info().rss, found.num_fds(), sockets, found.num_threads())

    def kill_engine(self) -> None:
        """SIGKILL to the process that generates."""
        for child in psutil.Process(self.process.pid).children(recursive=True):
            if "EngineCore" in " ".join(child.cmdline()):
                child.kill()
                return
        raise RuntimeError("no EngineCore below the gateway")

    def reload(self) -> None:
        """Point the run to its other bundle, as an operator does, and send SIGHUP."""
        link = self.run / "bundle"
        now = link.readlink().name
        (other,) = {*BUNDLES} - {now}
        new = self.run / "bundle.new"
        new.symlink_to(self.run / other)
        new.replace(link)
        self.process.send_signal(signal.SIGHUP)


def _is_socket(entry: Path) -> bool:
    try:
        return str(entry.readlink()).startswith("socket:")
    except FileNotFoundError:
        return False


@contextmanager
def two_bundles(run: Path) -> Iterator[Path]:
    """A run with another one's policies; its bundle is a link to one of two with other fallback weights."""
    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        folder = Path(name)
        (folder / "policy").symlink_to((run / "policy").resolve())
        shutil.copy(run / RUN_FILE, folder / RUN_FILE)
        for bundle in BUNDLES:
            shutil.copytree(run / "bundle", folder / bundle)
        second = folder / BUNDLES[1]
        info = read_bundle(second).info
        even = dict.fromkeys(info.fallback, 1 / len(info.fallback))
        changed = info.model_copy(update={"fallback": even})
        (second / BUNDLE_FILE).write_text(changed.model_dump_json(indent=2) + "\n", encoding="utf-8")
        write_manifest(second, read_manifest(second))
        (folder / "bundle").symlink_to(folder / BUNDLES[0])
        yield folder


@contextmanager
def serving(run: Path, options: Sequence[str], *, log: Path) -> Iterator[Gateway]:
    """`preforch serve RUN`, ready; killed at the end if it still runs."""
    command = [sys.executable, "-m", "preforch_service", str(run), "--port", "0", *options]
    with (
        log.open("w", encoding="utf-8") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
    ):
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line.startswith("ready at "):
                raise RuntimeError(f"the gateway did not start:\n{log.read_text(encoding='utf-8')[-3000:]}")
            yield Gateway(process, line.split()[-1], run)
        finally:
            process.kill()


@dataclass
class Story:
    """What happened to the gateway besides the load."""

    reloads: int = 0
    bundles: set[str] = field(default_factory=set)
    engine_killed: float | None = None
    engine_back: float | None = None
    exit_code: int | None = None
    samples: list[Sample] = field(default_factory=list)


async def soak(gateway: Gateway, rendered: Rendered, tally: Tally, options: argparse.Namespace) -> Story:
    """Load for the given time, with reloads and one kill; then a drain with streams running."""
    story = Story()
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=gateway.url, timeout=120, limits=limits) as http:
        clients = Clients(http, rendered, tally, seed=options.seed)
        tasks = [asyncio.create_task(clients.run()) for _ in range(options.clients)]
        try:
            await _watch(gateway, http, story, options)
        finally:
            clients.stopped = True
        await asyncio.gather(*tasks)
        streams = [asyncio.create_task(clients.stream(tokens=100)) for _ in range(8)]
        await asyncio.sleep(1)
        gateway.process.send_signal(signal.SIGTERM)
        if not await _turns_unready(http):
            tally.causeless.append(f"drain: /readyz is not 503 within {DRAIN_SECONDS:g} s of SIGTERM")
        await asyncio.gather(*streams)
    story.exit_code = await asyncio.to_thread(gateway.process.wait, 90)
    return story


async def _turns_unready(http: httpx.AsyncClient) -> bool:
    """Whether /readyz is 503 soon: a signal takes a moment to arrive."""
    until = time.monotonic() + DRAIN_SECONDS
    while time.monotonic() < until:
        if (await http.get("/readyz")).status_code == 503:
            return True
    return False


async def _watch(
    gateway: Gateway, http: httpx.AsyncClient, story: Story, options: argparse.Namespace
) -> None:
    """Sample, reload and kill at their times."""
    length = options.minutes * 60
    started = time.monotonic()
    reloaded = reported = 0.0
    while (now := time.monotonic() - started) < length or (
        # A slow machine needs longer than half of a short run to load the engine again.
        story.engine_killed is not None and story.engine_back is None and now < length + RECOVERY_SECONDS
    ):
        story.samples.append(gateway.sample(now))
        story.bundles.add((await http.get("/objectives")).json()["bundle"])
        if now - reported >= 60:
            reported = now
            print(_line(story.samples[-1]), file=sys.stderr, flush=True)
        if now - reloaded >= options.reload_every:
            reloaded = now
            gateway.reload()
            story.reloads += 1
        if story.engine_killed is None and now > length / 2:
            gateway.kill_engine()
            story.engine_killed = now
        elif story.engine_killed is not None and story.engine_back is None:
            # Right after the kill the gateway may not have noticed it yet.
            ready = (await http.get("/readyz")).status_code == 200
            story.engine_back = now if ready and now > story.engine_killed + SAMPLE_SECONDS else None
        await asyncio.sleep(SAMPLE_SECONDS)


def _line(sample: Sample) -> str:
    memory = f"{sample.seconds / 60:.1f} | {sample.rss / 2**20:.1f}"
    return f"| {memory} | {sample.fds} | {sample.sockets} | {sample.threads} |"


def report(tally: Tally, story: Story, found: Sequence[str]) -> str:
    """The tables and the verdict."""
    every = max(1, round(60 / SAMPLE_SECONDS))
    lines = ["| kind | outcome | requests |", "|---|---|---|"]
    lines += [
        f"| {kind} | {outcome} | {count} |" for (kind, outcome), count in sorted(tally.outcomes.items())
    ]
    lines += ["", "| minute | RSS MiB | descriptors | sockets | threads |", "|---|---|---|---|---|"]
    lines += [_line(sample) for sample in story.samples[::every]]
    first, last = (third(story.samples, lambda s: s.rss, last=last) / 2**20 for last in (False, True))
    lines += [
        "",
        f"Requests: {tally.outcomes.total()}. Unanswered: {len(tally.unanswered)}. Errors without cause: "
        f"{len(tally.causeless)}. Weights checked: {tally.weights_checked}, "
        f"wrong: {len(tally.wrong_weights)}.",
        f"Memory, median of the first and the last third after warm-up: {first:.1f}, {last:.1f} MiB "
        f"({100 * (last / first - 1):+.1f}%).",
        f"Reloads: {story.reloads}, bundles seen: {len(story.bundles)}. "
        f"Engine killed after {story.engine_killed or 0:.0f} s, ready again after "
        f"{story.engine_back or 0:.0f} s. Exit code after the drain: {story.exit_code}.",
        "",
        "\n".join(["FAILED", *found[:30]]) if found else "PASSED",
    ]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Run and judge."""
    options = parse(argv)
    policy = find_policy(options.run)
    context_format = read_policy_card(policy).context_format
    if context_format is None:
        raise ValueError(f"{policy}: reads no context, so there is nothing to compare announced weights with")
    rendered = Rendered(context_format, Tokenizer.from_file(str(policy / "tokenizer.json")))
    tally = Tally()
    with two_bundles(options.run) as run, serving(run, options.serve_option, log=options.log) as gateway:
        story = asyncio.run(soak(gateway, rendered, tally, options))
    found = faults(tally, story.samples, exit_code=story.exit_code)
    if story.engine_killed is not None and story.engine_back is None:
        found.append("the engine did not come back")
    if story.reloads and len(story.bundles) < len(BUNDLES):
        found.append(f"{story.reloads} reloads, but no other bundle was seen")
    print(report(tally, story, found))
    return 1 if found else 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--clients", type=int, default=12)
    parser.add_argument("--reload-every", type=float, default=30, metavar="S")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--log", type=Path, default=Path("soak.log"), help="log of the gateway")
    parser.add_argument(
        "--serve-option", action="append", default=[], help="to preforch serve: --serve-option=--flag"
    )
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
