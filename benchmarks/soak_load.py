"""The load of a soak: clients of all kinds from one seed, and what becomes of their requests.

In:  the URL of a gateway (an `httpx.AsyncClient`), the policy's context format and tokenizer. Out: a `Tally`.
"""

import asyncio
import json
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import httpx
from preforch_models.context import ContextFormat, objective_tokens, render_context
from tokenizers import Tokenizer

PROMPTS = (
    "How do I fix a tyre?",
    "Tell me a joke about a penguin.",
    "I feel sad today.",
    "Plan a week in the Alps.",
)
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
class Rendered:
    """Checks announced weights against the prompt that the engine read."""

    context_format: ContextFormat
    tokenizer: Tokenizer

    def agrees(self, prompt_ids: Sequence[int], weights: dict[str, float]) -> bool:
        """Whether the prompt holds the context of these weights, and no other."""
        text = "".join(self.tokenizer.decode(list(prompt_ids), skip_special_tokens=False).split())
        context = "".join(render_context(weights, self.context_format).split())
        first = objective_tokens(len(self.context_format.objectives))[0]
        return context in text and text.count(first) == 1


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
        names = self._rendered.context_format.objectives
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
        body = {
            "prompt": self._rng.choice(PROMPTS),
            "max_tokens": 16,
            "return_token_ids": True,
        } | self._asked()
        answer = await self._post("completion", "/v1/completions", body)
        if answer is not None:
            self._check(
                "completion", answer["choices"][0]["prompt_token_ids"], answer["preference"]["weights"]
            )

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
            data = [
                line.removeprefix("data: ")
                async for line in response.aiter_lines()
                if line.startswith("data: ")
            ]
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
