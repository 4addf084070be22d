"""Encoding texts: a plain transformers loop against `TextVectors`, same texts, model and process, in turns.

In:  texts (a JSON Lines file, or made from the demo world) and an encoder.
Out: a Markdown table on stdout. Fails when the vectors differ by more than 1e-4.

    python benchmarks/encode.py --texts pairs.jsonl --field chosen --limit 500 --repeats 5
"""

import argparse
import os
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
import transformers
from preforch_training.embeddings.batching import batch_tokens, length_batches
from preforch_training.embeddings.vectors import MINILM, EncoderSettings, TextVectors, encoder_path
from rounds import ratio
from texts import describe as describe_texts
from texts import read_texts
from transformers import AutoModel, AutoTokenizer

TOLERANCE = 1e-4
PLAIN_BATCH = 32


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table. Raises ValueError when the vectors of both ways differ."""
    options = parse(argv)
    torch.set_num_threads(options.threads)
    settings = EncoderSettings(name=options.encoder, pooling="mean", max_tokens=options.max_tokens)
    texts = read_texts(options.texts, field=options.field, limit=options.limit, seed=options.seed)
    timings = measure(settings, texts, repeats=options.repeats)
    print("\n".join([*describe(settings, texts, options), "", *table(timings, options)]))


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Encoding texts: a plain transformers loop against TextVectors."
    )
    parser.add_argument("--texts", type=Path, help="JSON Lines file (default: made from the demo world)")
    parser.add_argument("--field", default="text", help="field of a line that holds the text (default: text)")
    parser.add_argument("--encoder", default=MINILM, help="folder, hub id, or the packaged MiniLM (default)")
    parser.add_argument("--max-tokens", type=int, default=256)
    parser.add_argument("--limit", type=int, default=1000, help="number of distinct texts, drawn at random")
    parser.add_argument("--repeats", type=int, default=5, help="rounds of each way, in turns; at least 2")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seed", type=int, default=0, help="of the draw and the order of the texts")
    parser.add_argument("--objectives", type=int, default=3, help="K of the stage rows")
    parser.add_argument("--folds", type=int, default=5, help="models per objective of the stage rows")
    parser.add_argument("--epochs", type=int, default=3, help="E of the stage rows")
    options = parser.parse_args(argv)
    if options.repeats < 2:
        parser.error(f"--repeats is {options.repeats}; an interval needs at least 2")
    return options


# The ways.


def plain_loop(settings: EncoderSettings, texts: Sequence[str]) -> np.ndarray:
    """As people write it: batches in the given order, tokenised one by one, padded to their longest text."""
    path = encoder_path(settings.name)
    tokenizer, model = AutoTokenizer.from_pretrained(path), AutoModel.from_pretrained(path).eval()
    vectors = []
    with torch.no_grad():
        for start in range(0, len(texts), PLAIN_BATCH):
            batch = tokenizer(
                list(texts[start : start + PLAIN_BATCH]),
                padding="longest",
                truncation=True,
                max_length=settings.max_tokens,
                return_tensors="pt",
            )
            hidden_BLD = model(**batch).last_hidden_state
            mask_BL1 = batch["attention_mask"].unsqueeze(-1)
            vectors.append(((hidden_BLD * mask_BL1).sum(1) / mask_BL1.sum(1)).numpy())
    return np.concatenate(vectors)


def our_way(settings: EncoderSettings, texts: Sequence[str], cache: Path) -> np.ndarray:
    """What a stage does: the cache is opened anew."""
    return TextVectors(settings, cache)(texts)


@dataclass
class Timings:
    """Seconds per round, one entry a round."""

    plain: list[float] = field(default_factory=list)
    cold: list[float] = field(default_factory=list)
    cached: list[float] = field(default_factory=list)
    difference: float = 0.0
    """Largest absolute difference of a vector's entry."""


def measure(settings: EncoderSettings, texts: Sequence[str], *, repeats: int) -> Timings:
    """Every way once per round, every second round in the other order; loading the model counts for both."""
    plain_loop(settings, texts[:PLAIN_BATCH])  # The first pass of a process is slower, whoever makes it.
    timings = Timings()
    for number in range(repeats):
        with tempfile.TemporaryDirectory() as folder:
            ours = partial(our_way, settings, texts, Path(folder))
            both = [(timings.plain, partial(plain_loop, settings, texts)), (timings.cold, ours)]
            first, second = (timed(*way) for way in both[:: 1 if number % 2 == 0 else -1])
            third = timed(timings.cached, ours)
        for other_ND in (second, third):
            timings.difference = max(timings.difference, float(np.abs(first - other_ND).max()))
    if timings.difference > TOLERANCE:
        raise ValueError(f"vectors differ by {timings.difference:.1e}, allowed are {TOLERANCE:.0e}")
    return timings


def timed(seconds: list[float], way: Callable[[], np.ndarray]) -> np.ndarray:
    start = time.perf_counter()
    vectors_ND = way()
    seconds.append(time.perf_counter() - start)
    return vectors_ND


# The table.


def table(timings: Timings, options: argparse.Namespace) -> list[str]:
    """One pass first; the stage rows are sums of the measured passes."""
    plain, cold, cached = (np.array(seconds) for seconds in (timings.plain, timings.cold, timings.cached))
    k, e, f = options.objectives, options.epochs, options.folds
    rows = [
        ("**one pass, nothing cached**", plain, cold),
        ("one pass, cached by an earlier stage", plain, cached),
        (f"`scores`: {k} objectives, {f} out-of-fold models each *", k * plain, cold + (k * f - 1) * cached),
        (f"`orchestrator`: frozen encoder, head trained {e} epochs *", e * plain, cached),
        ("both stages *", (k + e) * plain, cold + k * f * cached),
    ]
    lines = ["| work | plain loop, s | TextVectors, s | ratio [95%] |", "|---|---|---|---|"]
    lines += [f"| {name} | {a.mean():.2f} | {b.mean():.3f} | {ratio(a, b)} |" for name, a, b in rows]
    return [
        *lines,
        "",
        f"Largest difference of a vector's entry: {timings.difference:.1e} (allowed {TOLERANCE:.0e}).",
        "\\* Computed from the measured passes: a plain loop that keeps nothing encodes every text once per",
        "objective and epoch; ours encodes once and is charged a whole cached pass per model, though it",
        "scores one fold only.",
        "Encoding alone: what the heads themselves compute is the same on both sides and left out.",
    ]


def describe(settings: EncoderSettings, texts: Sequence[str], options: argparse.Namespace) -> list[str]:
    """The machine and the texts: how much of the work is padding decides what there is to gain."""
    tokenizer = AutoTokenizer.from_pretrained(encoder_path(settings.name))
    ids = tokenizer(list(texts), truncation=True, max_length=settings.max_tokens)["input_ids"]
    lengths = [len(row) for row in ids]
    plain = [list(range(i, min(i + PLAIN_BATCH, len(ids)))) for i in range(0, len(ids), PLAIN_BATCH)]
    ours = list(length_batches(lengths, tokens=batch_tokens(torch.device("cpu"))))
    padded = [sum(len(rows) * max(lengths[i] for i in rows) for rows in way) for way in (plain, ours)]
    about = describe_texts(lengths, options.texts, field=options.field, seed=options.seed)
    return [
        f"Machine: {platform.machine()}, {os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}, "
        f"transformers {transformers.__version__}.",
        f"{about}; at most {settings.max_tokens}.",
        f"Padding: {sum(lengths)} tokens become {padded[0]} (x{padded[0] / sum(lengths):.2f}) "
        "in the plain loop, "
        f"{padded[1]} (x{padded[1] / sum(lengths):.2f}) in ours. {options.repeats} rounds.",
    ]


if __name__ == "__main__":
    main()
