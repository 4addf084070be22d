"""Mixed load on a real gateway with a real engine, and a verdict: answers, weights, leaks.

In:  a run folder (bundle and policy; read only). Out: a Markdown table on stdout; exit code 1 when something is off.

    python benchmarks/soak.py runs/demo --minutes 10

Clients of all kinds run side by side; the bundle is replaced by another one (SIGHUP) every `--reload-every` seconds;
the engine is killed once, half-way; at the end the gateway is drained (SIGTERM) while streams run.
"""

import argparse
import asyncio
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import psutil
from preforch_models.bundle import BUNDLE_FILE, read_bundle
from preforch_models.context import objective_tokens, render_context
from preforch_models.manifest import read_manifest, write_manifest
from preforch_models.policy_card import PolicyCard, read_policy_card
from preforch_service.locate import find_policy
from tokenizers import Tokenizer

SAMPLE_SECONDS = 5.0
BUNDLES = ("bundle-a", "bundle-b")
WARM_UP = 0.2
RECOVERY_SECONDS = 300.0
RSS_TOLERANCE = 0.05
FD_TOLERANCE = 5
PROMPTS = ("How do I fix a tyre?", "Tell me a joke about a penguin.", "I feel sad today.", "Plan a week in the Alps.")
KINDS = {
    "chat": 5,
    "stream": 5,
    "generate": 2,
    "completion": 2,
    "weights": 4,
    "weights_batch": 1,
    "objectives": 1,
    "disconnect": 3,
    "bad": 3,
    "oversize": 1,
}


@dataclass
class Tally:
    """What became of the requests."""

    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    unanswered: list[str] = field(default_factory=list)
    causeless: list[str] = field(default_factory=list)
    wrong_weights: list[str] = field(default_factory=list)
    weights_checked: int = 0

    def answered(self, kind: str, outcome: str = "ok") -> None:
        """An answer that is as it should be."""
        self.outcomes[kind, outcome] += 1

    def error(self, kind: str, status: int, content: bytes) -> None:
        """An error; one that does not say what is wrong counts against the gateway."""
        try:
            said = json.loads(content)["error"]
            cause = said["code"] or said["param"] or said["type"]
            if status == 500 or not said["message"]:
                raise ValueError(said)
        except (ValueError, KeyError, TypeError) as error:
            self.causeless.append(f"{kind}: {status} {content[:200]!r} ({error!r})")
            cause = "no cause"
        self.outcomes[kind, f"{status} {cause}"] += 1

    def nothing(self, kind: str, why: str) -> None:
        """No answer, or one that broke off without a word."""
        self.unanswered.append(f"{kind}: {why}")
        self.outcomes[kind, "unanswered"] += 1


@dataclass(frozen=True)
class Sample:
    """The gateway process at one moment."""

    seconds: float
    rss: int
    fds: int
    sockets: int
    threads: int


@dataclass(frozen=True)
class Rendered:
    """Checks announced weights against the prompt that the engine read."""

    card: PolicyCard
    tokenizer: Tokenizer

    def agrees(self, prompt_ids: Sequence[int], weights: dict[str, float]) -> bool:
        """Whether the prompt holds the context of these weights, and no other."""
        text = "".join(self.tokenizer.decode(list(prompt_ids), skip_special_tokens=False).split())
        context = "".join(render_context(weights, self.card.context).split())
        first = objective_tokens(len(self.card.context.objectives))[0]
        return context in text and text.count(first) == 1


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


class Clients:
    """Load of all kinds from one seed."""

    def __init__(self, http: httpx.AsyncClient, rendered: Rendered, tally: Tally, *, seed: int) -> None:
        self._http = http
        self._rendered = rendered
        self._tally = tally
        self._rng = random.Random(seed)
        self.stopped = False
        self._kinds: dict[str, Callable[[], Awaitable[None]]] = {
            "chat": self.chat,
            "stream": self.stream,
            "generate": self.generate,
            "completion": self.completion,
            "weights": self.weights,
            "weights_batch": self.weights_batch,
            "objectives": self.objectives,
            "disconnect": self.disconnect,
            "bad": self.bad,
            "oversize": self.oversize,
        }

    async def run(self) -> None:
        """One client, until it is stopped."""
        while not self.stopped:
            (kind,) = self._rng.choices(list(KINDS), weights=list(KINDS.values()))
            await self.one(kind)

    async def one(self, kind: str) -> None:
        """One request. An exception of the client is a request without an answer."""
        try:
            await self._kinds[kind]()
        except (httpx.HTTPError, ValueError, KeyError) as error:
            self._tally.nothing(kind, repr(error))

    def _asked(self) -> dict[str, Any]:
        """No weights, all of them, or one."""
        names = self._rendered.card.context.objectives
        full = {name: self._rng.randint(1, 9) for name in names}
        return self._rng.choice(({}, {"preference_weights": full}, {"preference_weights": {names[0]: 0.4}}))

    def _chat(self, **fields: object) -> dict[str, Any]:
        # A part of the prompts is always new, so that the orchestrator has work to do.
        prompt = self._rng.choice((*PROMPTS, f"Tell me about {self._rng.randrange(10**6)}"))
        messages = [{"role": "user", "content": prompt}]
        return {"messages": messages, "max_tokens": 16, "return_token_ids": True} | self._asked() | fields

    def _check(self, kind: str, prompt_ids: Sequence[int], weights: dict[str, float]) -> None:
        self._tally.weights_checked += 1
        if not self._rendered.agrees(prompt_ids, weights):
            self._tally.wrong_weights.append(f"{kind}: announced {weights}")

    async def _post(self, kind: str, path: str, body: dict[str, Any]) -> Any:
        """The JSON of a good answer; None for an error, which is then counted."""
        response = await self._http.post(path, json=body)
        if response.status_code != 200:
            self._tally.error(kind, response.status_code, response.content)
            # What a client does that is told to come back later.
            await asyncio.sleep(0.2)
            return None
        self._tally.answered(kind)
        return response.json()

    async def chat(self) -> None:
        """A chat completion."""
        answer = await self._post("chat", "/v1/chat/completions", self._chat())
        if answer is not None:
            self._check("chat", answer["prompt_token_ids"], answer["preference"]["weights"])

    async def completion(self) -> None:
        """A completion of a prompt."""
        body = {"prompt": self._rng.choice(PROMPTS), "max_tokens": 16, "return_token_ids": True} | self._asked()
        answer = await self._post("completion", "/v1/completions", body)
        if answer is not None:
            self._check("completion", answer["choices"][0]["prompt_token_ids"], answer["preference"]["weights"])

    async def generate(self) -> None:
        """Our own format."""
        await self._post("generate", "/generate", {"prompt": self._rng.choice(PROMPTS), "max_tokens": 16})

    async def weights(self) -> None:
        """One recommendation."""
        await self._post("weights", "/weights", {"prompt": f"Tell me about {self._rng.randrange(10**6)}"})

    async def weights_batch(self) -> None:
        """Many recommendations."""
        await self._post("weights_batch", "/weights", {"inputs": list(PROMPTS) * 4})

    async def objectives(self) -> None:
        """What can be weighed."""
        response = await self._http.get("/objectives")
        if response.status_code == 200:
            self._tally.answered("objectives")
        else:
            self._tally.error("objectives", response.status_code, response.content)

    async def bad(self) -> None:
        """A request that is wrong."""
        wrong: tuple[dict[str, Any], ...] = (
            {"preference_weights": {"nonsense": 1}},
            {"messages": []},
            {"request_id": "x"},
            {"n": -1},
            {"model": "x"},
        )
        response = await self._http.post("/v1/chat/completions", json=self._chat() | self._rng.choice(wrong))
        self._expect("bad", response, {400, 404})

    async def oversize(self) -> None:
        """A body over the limit."""
        response = await self._http.post("/weights", json={"prompt": "x" * (5 * 2**20)})
        self._expect("oversize", response, {413})

    def _expect(self, kind: str, response: httpx.Response, statuses: set[int]) -> None:
        self._tally.error(kind, response.status_code, response.content)
        if response.status_code not in {*statuses, 429, 503}:
            self._tally.causeless.append(f"{kind}: {response.status_code}, expected {sorted(statuses)}")

    async def stream(self, *, tokens: int = 48) -> None:
        """A stream that is read to its end, which is `[DONE]`."""
        body = self._chat(stream=True, max_tokens=tokens, ignore_eos=True)
        async with self._http.stream("POST", "/v1/chat/completions", json=body) as response:
            if response.status_code != 200:
                self._tally.error("stream", response.status_code, await response.aread())
                return
            data = [line.removeprefix("data: ") async for line in response.aiter_lines() if line.startswith("data: ")]
        if not data or data[-1] != "[DONE]":
            self._tally.nothing("stream", f"ends with {data[-1:]}")
            return
        events = [json.loads(event) for event in data[:-1]]
        if "error" in events[-1]:
            self._tally.error("stream", 503, data[-2].encode())
        else:
            self._tally.answered("stream")
        if "preference" in events[0]:
            self._check("stream", events[0]["prompt_token_ids"], events[0]["preference"]["weights"])

    async def disconnect(self) -> None:
        """A client that leaves: before the head of the answer, or in the middle of a stream."""
        body = self._chat(stream=self._rng.random() < 0.7, max_tokens=150, ignore_eos=True)
        with suppress(TimeoutError):
            async with asyncio.timeout(self._rng.uniform(0.02, 1.5)):
                async with self._http.stream("POST", "/v1/chat/completions", json=body) as response:
                    async for _ in response.aiter_raw():
                        pass
        self._tally.answered("disconnect", "left")


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
    """A run with the policies of another one, and a link to one of two bundles with different fallback weights."""
    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        folder = Path(name)
        (folder / "policy").symlink_to((run / "policy").resolve())
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
        refused = await http.get("/readyz")
        if refused.status_code != 503:
            tally.causeless.append(f"drain: /readyz answers {refused.status_code}")
        await asyncio.gather(*streams)
    story.exit_code = await asyncio.to_thread(gateway.process.wait, 90)
    return story


async def _watch(gateway: Gateway, http: httpx.AsyncClient, story: Story, options: argparse.Namespace) -> None:
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
    return (
        f"| {sample.seconds / 60:.1f} | {sample.rss / 2**20:.1f} | {sample.fds} | {sample.sockets} | {sample.threads} |"
    )


def report(tally: Tally, story: Story, found: Sequence[str]) -> str:
    """The tables and the verdict."""
    every = max(1, round(60 / SAMPLE_SECONDS))
    lines = ["| kind | outcome | requests |", "|---|---|---|"]
    lines += [f"| {kind} | {outcome} | {count} |" for (kind, outcome), count in sorted(tally.outcomes.items())]
    lines += ["", "| minute | RSS MiB | descriptors | sockets | threads |", "|---|---|---|---|---|"]
    lines += [_line(sample) for sample in story.samples[::every]]
    first, last = (third(story.samples, lambda s: s.rss, last=last) / 2**20 for last in (False, True))
    lines += [
        "",
        f"Requests: {tally.outcomes.total()}. Unanswered: {len(tally.unanswered)}. Errors without cause: "
        f"{len(tally.causeless)}. Weights checked: {tally.weights_checked}, wrong: {len(tally.wrong_weights)}.",
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
    rendered = Rendered(
        read_policy_card(policy / "preference.json"), Tokenizer.from_file(str(policy / "tokenizer.json"))
    )
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--clients", type=int, default=12)
    parser.add_argument("--reload-every", type=float, default=30, metavar="S")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--log", type=Path, default=Path("soak.log"), help="log of the gateway")
    parser.add_argument("--serve-option", action="append", default=[], help="to preforch serve: --serve-option=--flag")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
