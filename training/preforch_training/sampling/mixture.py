"""Responses drawn from several policies together, token by token (Multi-Objective Decoding, 2406.18853;
METHOD 7).

In:  the folder of a policy whose conditioning is `mixture`; requests.
Out: for each request its responses, as from every sampler.

A token is drawn from softmax(sum_k w_k logits_k / temperature), logits_k those of member k after the same
prompt and response so far; logits differ from log-probabilities by a constant, which the softmax drops. Where
the members are pi_k(y|x) ~ pi_ref(y|x) exp(r_k(x, y) / beta), all with one reference and one beta, their
mixture pi_ref exp(w.r / beta), normalised, is the policy that maximises w.r - beta KL.

Departure, the paper's own: the optimum is normalised over whole responses, the mixture at every token, by a
sum that depends on the response so far. It is exact for one token, and an approximation beyond.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from preforch_models.manifest import ArtifactError
from preforch_models.policy_card import PolicyCard, read_policy_card
from tqdm import tqdm
from transformers import AutoModelForCausalLM

from preforch_training.embeddings.batching import length_batches, reading_device
from preforch_training.policy.tokenizer import PolicyTokenizer
from preforch_training.sampling.settings import Dtype
from preforch_training.sampling.vllm import Generation, SampleRequest, prompts_of
from preforch_training.tuning.device_memory import free_memory

_CACHED_TOKENS = {"cpu": 16_384, "cuda": 65_536}
"""Tokens of prompts and responses that one batch may hold, in the cache of each member."""


@dataclass(frozen=True)
class Row:
    """One response to draw. `weights_K`: in the order of the members; `uniforms_T`: a number in [0, 1) for
    each of its tokens."""

    prompt_ids: Sequence[int]
    weights_K: Sequence[float]
    uniforms_T: np.ndarray


@dataclass(frozen=True)
class MixtureSampler:
    """Draws in this process, all members at a time on its GPU where it has one, else on the CPU.

    Every response has random numbers of its own, from the seed of its request and its place there, so that
    it does not depend on the batch it is drawn in, but for the last bits of a sum.
    """

    dtype: Dtype = "auto"
    """Of weights and key-value caches. `auto`: the checkpoints' on a GPU, float32 on a CPU."""

    @property
    def peak_memory_mib(self) -> float:
        """None: there are no other processes."""
        return 0.0

    def sample(
        self,
        policy: Path,
        requests: Sequence[SampleRequest],
        *,
        temperature: float,
        top_p: float,
        max_tokens: int,
    ) -> list[list[Generation]]:
        """See `Sampler`; temperature 0 takes the likeliest token. Raises ValueError for a prompt that leaves
        no room, ArtifactError where a member is not the one that the mixture was made of."""
        if not requests:
            return []
        reader = PolicyTokenizer(policy)
        folders = member_folders(policy, reader.card)
        prompts = prompts_of(reader, requests, max_tokens=max_tokens)
        rows = [
            Row(ids, [request.weights[name] for name in folders], _uniforms(request.seed, place, max_tokens))
            for ids, request in zip(prompts, requests, strict=True)
            for place in range(request.n)
        ]
        drawn: dict[int, Generation] = {}
        models = MixedModels(list(folders.values()), dtype=self.dtype)
        lengths, most = [len(row.prompt_ids) + max_tokens for row in rows], _CACHED_TOKENS[models.device.type]
        with tqdm(total=len(rows), desc="mixture", unit=" responses", leave=False) as bar:
            for numbers in length_batches(lengths, tokens=most):
                batch = [rows[i] for i in numbers]
                answers = draw(models, batch, temperature=temperature, top_p=top_p, end_id=reader.end_id)
                for i, (token_ids, finished) in zip(numbers, answers, strict=True):
                    drawn[i] = Generation(tuple(token_ids), reader.text(token_ids), finished)
                bar.update(len(numbers))
        del models
        free_memory()
        in_order = iter([drawn[i] for i in range(len(rows))])
        return [[next(in_order) for _ in range(request.n)] for request in requests]

    def close(self) -> None:
        """See `Sampler`: every call gives its memory back."""


def _uniforms(seed: int, place: int, count: int) -> np.ndarray:
    return np.random.default_rng([seed, place]).random(count)


def member_folders(policy: Path, card: PolicyCard) -> dict[str, Path]:
    """The members of a mixture by objective, in the order of its card. Raises ArtifactError where one was
    trained again since."""
    folders = card.conditioning.folders(policy)
    for objective, folder in folders.items():
        if read_policy_card(folder).revision != card.conditioning.revisions[objective]:
            raise ArtifactError(
                f"{policy} is stale: its member for {objective!r}, {folder}, was trained again; "
                "`preforch train policy CONFIG` makes it anew"
            )
    return {name: folders[name] for name in card.objectives}


class MixedModels:
    """Policies of one vocabulary that read the same batch, each with a key-value cache of its own."""

    def __init__(self, folders: Sequence[Path], *, dtype: Dtype) -> None:
        self.device = reading_device()
        loaded = "float32" if dtype == "auto" and self.device.type == "cpu" else dtype
        self._models = [
            AutoModelForCausalLM.from_pretrained(folder, use_safetensors=True, dtype=loaded)
            .eval()
            .to(self.device)
            for folder in folders
        ]

    def begin(self, prompts: Sequence[Sequence[int]]) -> torch.Tensor:
        """Read a new batch. Logits of the token after each prompt, (K, B, V) float64."""
        longest = max(map(len, prompts))
        # On the left, so that all prompts end in one place; token 0 there is never looked at.
        gaps = [longest - len(ids) for ids in prompts]
        ids_BT = [[0] * gap + [*ids] for gap, ids in zip(gaps, prompts, strict=True)]
        read_BT = [[0] * gap + [1] * (longest - gap) for gap in gaps]
        self._read_BT = torch.tensor(read_BT, device=self.device)
        self._caches: list[Any] = [None] * len(self._models)
        return self._logits(torch.tensor(ids_BT, device=self.device))

    def proceed(self, token_B: torch.Tensor) -> torch.Tensor:
        """Read one more token of every row. Logits of the next, (K, B, V) float64."""
        self._read_BT = torch.cat([self._read_BT, torch.ones_like(self._read_BT[:, :1])], dim=1)
        return self._logits(token_B[:, None])

    def keep(self, rows: torch.Tensor) -> None:
        """Forget all rows but these, (B',) int64."""
        self._read_BT = self._read_BT[rows]
        for cache in self._caches:
            cache.batch_select_indices(rows)

    @torch.inference_mode()
    def _logits(self, ids_BT: torch.Tensor) -> torch.Tensor:
        places_BT = (self._read_BT.cumsum(dim=1) - 1).clamp(min=0)[:, -ids_BT.shape[1] :]
        found = []
        for k, model in enumerate(self._models):
            output = model(
                input_ids=ids_BT,
                attention_mask=self._read_BT,
                position_ids=places_BT,
                past_key_values=self._caches[k],
                use_cache=True,
                logits_to_keep=1,
            )
            self._caches[k] = output.past_key_values
            found.append(output.logits[:, -1].double())
        return torch.stack(found)


def mixture(
    logits_KBV: torch.Tensor, weights_KB: torch.Tensor, *, temperature: float, top_p: float
) -> torch.Tensor:
    """Probabilities of the next token, (B, V): of the likeliest tokens that hold `top_p` of all together."""
    mixed_BV = torch.einsum("kbv,kb->bv", logits_KBV, weights_KB)
    if temperature == 0:
        return torch.nn.functional.one_hot(mixed_BV.argmax(dim=-1), mixed_BV.shape[-1]).double()
    probability_BV = torch.softmax(mixed_BV / temperature, dim=-1)
    falling_BV, order_BV = probability_BV.sort(dim=-1, descending=True, stable=True)
    likelier_BV = falling_BV.cumsum(dim=-1) - falling_BV
    kept_BV = torch.zeros_like(probability_BV).scatter(
        -1, order_BV, falling_BV.masked_fill(likelier_BV >= top_p, 0.0)
    )
    return kept_BV / kept_BV.sum(dim=-1, keepdim=True)


def pick(probability_BV: torch.Tensor, uniform_B: torch.Tensor) -> torch.Tensor:
    """The token at which all probability up to it exceeds the number, (B,).

    By ids in order: two tokens that are almost as likely as each other must not change places.
    """
    below_BV = probability_BV.cumsum(dim=-1)
    return torch.searchsorted(below_BV, uniform_B[:, None] * below_BV[:, -1:], right=True)[:, 0]


def draw(
    models: MixedModels, rows: Sequence[Row], *, temperature: float, top_p: float, end_id: int
) -> list[tuple[list[int], bool]]:
    """Token ids of each row without the end token, and whether it came. Rows leave the batch with it."""
    drawn: list[list[int]] = [[] for _ in rows]
    finished = [False] * len(rows)
    going = list(range(len(rows)))
    weights_KB = torch.tensor([row.weights_K for row in rows], dtype=torch.float64, device=models.device).T
    uniform_TB = torch.tensor(np.stack([row.uniforms_T for row in rows], axis=1), device=models.device)
    logits_KBV = models.begin([row.prompt_ids for row in rows])
    while going:
        probability_BV = mixture(logits_KBV, weights_KB, temperature=temperature, top_p=top_p)
        token_B = pick(probability_BV, uniform_TB[0])
        uniform_TB = uniform_TB[1:]
        for i, token in zip(going, token_B.tolist(), strict=True):
            finished[i] = token == end_id
            if not finished[i]:
                drawn[i].append(token)
        going = [i for i in going if not finished[i]]
        if not len(uniform_TB):
            break
        if len(going) < len(token_B):
            kept = (token_B != end_id).nonzero()[:, 0]
            models.keep(kept)
            token_B, weights_KB, uniform_TB = token_B[kept], weights_KB[:, kept], uniform_TB[:, kept]
        if going:
            logits_KBV = models.proceed(token_B)
    return list(zip(drawn, finished, strict=True))
