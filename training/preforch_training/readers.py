"""Who reads the data's texts: rewards and orchestrator, each with its limit of tokens."""

from functools import partial

from preforch_training.config import RunConfig
from preforch_training.data.truncation import Reader
from preforch_training.reward.config import TextReading
from preforch_training.reward.kinds import KINDS
from preforch_training.reward.texts import tokens_of


def readers_of(config: RunConfig) -> list[Reader]:
    """The models that read the data's texts, besides the policies."""
    readers = []
    for name, settings in config.reward.rewards.items():
        if (reads := KINDS[settings.kind].reads) is not None:
            model, revision = settings.base_model, getattr(settings, "revision", "main")
            tokens = partial(tokens_of, settings) if isinstance(settings, TextReading) else None
            readers.append(Reader(f"reward.{name}", model, revision, settings.max_tokens, reads, tokens))
    own = config.orchestrator
    return [*readers, Reader("orchestrator", own.encoder, own.revision, own.max_tokens, "prompts")]
