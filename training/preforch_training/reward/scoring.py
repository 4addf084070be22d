"""Rewards: every kind a config can name, and one way to score with all of them.

A reward is trained (`pair_head`, `bradley_terry`) or given (`classifier`, `function`, `endpoint`). Scoring takes
prompts and responses and gives raw rewards, (N,) per objective, (N, K) together.
"""

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import httpx
import numpy as np
import torch
from preforch_models.encoder import LAST, Layers, Pooling
from preforch_models.objectives import Record
from preforch_models.reward_model import PairHead
from pydantic import Field, PositiveFloat
from tqdm import tqdm
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from preforch_training.embeddings.batching import batch_tokens, padded_batches
from preforch_training.embeddings.vectors import EncoderSettings, TextVectors
from preforch_training.records import PreferencePair, Prompt
from preforch_training.scores.table import read_calibration

if TYPE_CHECKING:
    from preforch_training.config import RunConfig
    from preforch_training.run import Run


class PairHeadReward(Record):
    """Bradley-Terry head on frozen vectors (`preforch_models.reward_model`), for small data and CPUs. [ours]"""

    kind: Literal["pair_head"] = "pair_head"
    encoder: str
    pooling: Pooling = "mean"
    layers: Layers = LAST
    """Layers whose pooled states the head reads, joined."""
    max_tokens: int = 128
    hidden: int = Field(default=256, ge=0)
    """Units of the MLP, fitted by AdamW; 0 for a linear head, which is fitted to the end and needs nothing below but
    `penalties`."""
    penalties: tuple[PositiveFloat, ...] = Field(default=(10.0, 3.0, 1.0, 0.3, 0.1, 0.03), min_length=1)
    """L2 penalties of a linear head; a fifth of the prompts that it is fitted on chooses."""
    dropout: float = 0.1
    epochs: int = 12
    batch_size: int = 256
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    center_coefficient: float = 0.01
    """Pins the offset that the Bradley-Terry loss leaves free. [ours]"""


class BradleyTerryReward(Record):
    """Full fine-tuning of a sequence classifier by TRL's RewardTrainer (paper, Eq. 2; Qwen2.5-0.5B [paper])."""

    kind: Literal["bradley_terry"] = "bradley_terry"
    base: str
    revision: str = "main"
    max_tokens: int = 4096
    """[paper]. Longer pairs are truncated on the prompt's side, never filtered."""
    epochs: float = 1.0
    batch_size: int = 16
    learning_rate: float = 1e-5
    center_coefficient: float = 0.01
    save_steps: int = 200


class ClassifierReward(Record):
    """An existing Hugging Face sequence classifier; its logit `label` is the reward."""

    kind: Literal["classifier"] = "classifier"
    model: str
    revision: str = "main"
    label: int = 0
    max_tokens: int = 4096
    batch_size: int = 16


class FunctionReward(Record):
    """`package.module:function`, called with prompts and responses (lists of str), returns one number each."""

    kind: Literal["function"] = "function"
    function: Annotated[str, Field(pattern=r"^[\w.]+:\w+$")]


class EndpointReward(Record):
    """HTTP endpoint: POST {"query", "prompts", "labels"} -> {"rewards": [...]} (OpenRLHF's contract)."""

    kind: Literal["endpoint"] = "endpoint"
    url: str
    batch_size: int = 64
    timeout_seconds: float = 60.0


Config = Annotated[
    PairHeadReward | BradleyTerryReward | ClassifierReward | FunctionReward | EndpointReward,
    Field(discriminator="kind"),
]


def model_name(config: Config) -> str:
    """The encoder, base or model that a reward is made from; empty where there is none."""
    if isinstance(config, PairHeadReward):
        return config.encoder
    if isinstance(config, BradleyTerryReward):
        return config.base
    return config.model if isinstance(config, ClassifierReward) else ""


TRAINED = ("pair_head", "bradley_terry")


def fold_folder(folder: Path, fold: int | None) -> Path:
    """Folder of the full model, or of the one that never saw a fold."""
    return folder if fold is None else folder / "folds" / str(fold)


def score(
    config: Config,
    folder: Path,
    vectors_at: Path,
    prompts: Sequence[Prompt],
    responses: Sequence[str],
    fold: int | None,
) -> np.ndarray:
    """Raw rewards of one objective, (N,). Raises ValueError on a reward that is not finite."""
    texts = [prompt.text for prompt in prompts]
    if isinstance(config, PairHeadReward):
        rewards_N = _score_pair_head(config, fold_folder(folder, fold), vectors_at, texts, responses)
    elif isinstance(config, BradleyTerryReward):
        model = str(fold_folder(folder, fold))
        rewards_N = _score_classifier(
            model, None, 0, config.max_tokens, config.batch_size, prompts, responses
        )
    elif isinstance(config, ClassifierReward):
        rewards_N = _score_classifier(
            config.model,
            config.revision,
            config.label,
            config.max_tokens,
            config.batch_size,
            prompts,
            responses,
        )
    elif isinstance(config, FunctionReward):
        rewards_N = _score_function(config.function, texts, responses)
    else:
        rewards_N = _score_endpoint(config, texts, responses)
    return check_rewards(rewards_N, texts, responses, source=config.kind)


def check_rewards(values: Any, texts: Sequence[str], responses: Sequence[str], *, source: str) -> np.ndarray:
    """(N,) float64. Raises ValueError naming the first response whose reward is missing or not finite."""
    rewards_N = np.asarray(values, dtype=np.float64)
    if rewards_N.shape != (len(responses),):
        raise ValueError(
            f"{source} reward: expected {len(responses)} numbers, got an array of shape {rewards_N.shape}"
        )
    wrong = np.flatnonzero(~np.isfinite(rewards_N))
    if wrong.size:
        i = int(wrong[0])
        raise ValueError(
            f"{source} reward of response {i} is {rewards_N[i]}, it must be finite; "
            f"prompt {texts[i][:80]!r}, response {responses[i][:80]!r}"
        )
    return rewards_N


def _score_pair_head(
    config: PairHeadReward,
    model_folder: Path,
    vectors_at: Path,
    texts: Sequence[str],
    responses: Sequence[str],
) -> np.ndarray:
    vectors = TextVectors(encoder_settings(config), vectors_at)
    # One call for both, so that nothing is encoded twice.
    both_ND = torch.from_numpy(vectors([*texts, *responses]))
    model = PairHead.from_pretrained(model_folder).eval()
    with torch.inference_mode():
        rewards_N = model(both_ND[: len(texts)], both_ND[len(texts) :])
    return np.asarray(rewards_N.double().numpy())


def encoder_settings(config: PairHeadReward) -> EncoderSettings:
    """The frozen encoder of a pair head."""
    return EncoderSettings(
        name=config.encoder, pooling=config.pooling, max_tokens=config.max_tokens, layers=config.layers
    )


def _score_classifier(
    path: str,
    revision: str | None,
    label: int,
    max_tokens: int,
    batch_size: int,
    prompts: Sequence[Prompt],
    responses: Sequence[str],
) -> np.ndarray:
    options = {} if revision is None else {"revision": revision}
    tokenizer = AutoTokenizer.from_pretrained(path, truncation_side="left", **options)
    model = AutoModelForSequenceClassification.from_pretrained(path, **options).eval()
    model = model.to("cuda" if torch.cuda.is_available() else "cpu")
    texts = [classifier_text(tokenizer, p, r) for p, r in zip(prompts, responses, strict=True)]
    batches = padded_batches(
        tokenizer,
        texts,
        max_tokens=max_tokens,
        # What `batch_size` texts of full length take is the most that memory must hold.
        tokens=min(batch_size * max_tokens, batch_tokens(model.device)),
        title="score",
        # The chat template has written the special tokens already.
        add_special_tokens=tokenizer.chat_template is None,
    )
    rewards_N = np.zeros(len(texts))
    with torch.inference_mode():
        for rows, batch in batches:
            rewards_N[rows] = model(**batch.to(model.device)).logits[:, label].double().cpu().numpy()
    return rewards_N


def classifier_text(tokenizer: Any, prompt: Prompt, response: str) -> str:
    """The text that a sequence classifier reads: its own chat template where it has one, plain turns where not."""
    messages = [message.model_dump() for message in prompt.messages] + [
        {"role": "assistant", "content": response}
    ]
    if tokenizer.chat_template is not None:
        return str(tokenizer.apply_chat_template(messages, tokenize=False))
    return "\n".join(f"{message['role']}: {message['content']}" for message in messages)


def _score_function(name: str, texts: Sequence[str], responses: Sequence[str]) -> Any:
    module, _, attribute = name.partition(":")
    try:
        function = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"reward function {name!r} cannot be loaded: {error}") from error
    try:
        return function(list(texts), list(responses))
    except Exception as error:
        raise ValueError(f"reward function {name!r} failed: {error!r}") from error


def _score_endpoint(config: EndpointReward, texts: Sequence[str], responses: Sequence[str]) -> np.ndarray:
    rewards: list[float] = []
    with httpx.Client(timeout=config.timeout_seconds) as client:
        for start in tqdm(range(0, len(texts), config.batch_size), desc="score", unit="batch"):
            part = slice(start, start + config.batch_size)
            queries = [text + response for text, response in zip(texts[part], responses[part], strict=True)]
            body = {"query": queries, "prompts": list(texts[part]), "labels": list(responses[part])}
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


def pair_margins(
    config: Config,
    folder: Path,
    vectors_at: Path,
    prompts: Mapping[str, Prompt],
    pairs: Sequence[PreferencePair],
    *,
    fold: int | None = None,
) -> np.ndarray:
    """Raw r(y+) - r(y-) of one objective, (N,), by the model of a fold or the full one; `prompts` by id."""
    asked = [prompts[pair.prompt_id] for pair in pairs]
    sides = [*(pair.chosen for pair in pairs), *(pair.rejected for pair in pairs)]
    if not pairs:
        return np.empty(0)
    rewards_M = score(config, folder, vectors_at, [*asked, *asked], sides, fold)
    return np.asarray(rewards_M[: len(pairs)] - rewards_M[len(pairs) :])


class Scorer:
    """All rewards of a run. Training prompts of a trained reward get the model that never saw their fold."""

    def __init__(self, run: "Run", config: "RunConfig") -> None:
        self._run, self._config = run, config

    def raw(
        self,
        prompts: Sequence[Prompt],
        responses: Sequence[str],
        *,
        folds: Sequence[int | None] | None = None,
    ) -> np.ndarray:
        """Raw rewards, (N, K). `folds[i]`: fold of the models to use, None for the full ones (the default)."""
        fold_of = list(folds) if folds is not None else [None] * len(prompts)
        return np.stack(
            [self.of_objective(name, prompts, responses, fold_of) for name in self._config.names], axis=1
        )

    def of_objective(
        self,
        name: str,
        prompts: Sequence[Prompt],
        responses: Sequence[str],
        folds: Sequence[int | None] | None = None,
    ) -> np.ndarray:
        """Raw rewards of one objective, (N,)."""
        reward = self._config.reward[name]
        used = [None] * len(prompts) if folds is None or reward.kind not in TRAINED else folds
        rewards_N = np.zeros(len(prompts))
        for fold in sorted(set(used), key=lambda f: -1 if f is None else f):
            rows = [i for i, f in enumerate(used) if f == fold]
            rewards_N[rows] = score(
                reward,
                self._run.reward(name),
                self._run.encoder_cache,
                [prompts[i] for i in rows],
                [responses[i] for i in rows],
                fold,
            )
        return rewards_N

    def calibrated(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> np.ndarray:
        """Calibrated rewards by the full models, (N, K)."""
        return read_calibration(self._run.scores).apply_matrix(self.raw(prompts, responses))


def open_scorer(run: "Run", config: "RunConfig") -> Scorer:
    """The rewards of a run; its `reward` stage must be done."""
    return Scorer(run, config)
