"""Progress of Hugging Face trainers: the bar with rate and time left, without a line per logged step."""

from typing import Any

from transformers import ProgressCallback, Trainer
from transformers.utils import logging


class Bar(ProgressCallback):  # type: ignore[misc]  # transformers is partly untyped
    """The bar alone; the numbers are in metrics.jsonl and TensorBoard."""

    def on_log(self, *_: Any, **__: Any) -> None:
        """Print nothing."""


def show_bar_only(trainer: Trainer) -> None:
    """Replace a trainer's progress display, and silence the bars of loading and saving."""
    logging.disable_progress_bar()
    trainer.remove_callback(ProgressCallback)
    trainer.add_callback(Bar)
