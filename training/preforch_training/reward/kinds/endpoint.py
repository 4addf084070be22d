"""Reward kind `endpoint`: an HTTP server that scores responses, by OpenRLHF's contract."""

from collections.abc import Sequence
from pathlib import Path

import httpx
import numpy as np
from tqdm import tqdm

from preforch_training.records import Prompt
from preforch_training.reward.config import EndpointReward


def score(
    config: EndpointReward, folder: Path, cache: Path, prompts: Sequence[Prompt], responses: Sequence[str]
) -> np.ndarray:
    """The endpoint's rewards, (N,). Raises ValueError on an answer that is not as many numbers as were
    asked for."""
    del folder, cache
    texts = [prompt.text for prompt in prompts]
    rewards: list[float] = []
    with httpx.Client(timeout=config.timeout_seconds) as client:
        for start in tqdm(range(0, len(texts), config.batch_size), desc="score", unit="batch"):
            part = slice(start, start + config.batch_size)
            queries = [text + response for text, response in zip(texts[part], responses[part], strict=True)]
            body = {"query": queries, "prompts": texts[part], "labels": list(responses[part])}
            try:
                answer = client.post(config.url, json=body).raise_for_status().json()
                values = [float(value) for value in answer["rewards"]]
            except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
                raise ValueError(
                    f"reward endpoint {config.url}: {error!r}; expected {{'rewards': [...]}}"
                ) from error
            if len(values) != len(queries):
                raise ValueError(
                    f"reward endpoint {config.url}: {len(values)} rewards for {len(queries)} responses"
                )
            rewards.extend(values)
    return np.array(rewards)
