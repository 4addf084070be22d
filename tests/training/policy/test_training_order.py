"""What a step of a fine-tuning holds: the rows of a random order, batched by length, with the same result."""

import itertools
import json
import random
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import tiny
import torch
from accelerate.data_loader import SeedableRandomSampler, prepare_data_loader, skip_first_batches
from preforch_models.context import ContextFormat
from preforch_training.policy.fine_tuning import TokenRow, TrainingOrder, fine_tune
from preforch_training.policy.settings.fine_tuning import FineTuning
from preforch_training.policy.tokenizer import PolicyTokenizer
from torch.utils.data import DataLoader, TensorDataset
from transformers import AutoModelForCausalLM, PreTrainedModel

SEED = 3
# 23 rows in steps of 2 x 3: four steps of six rows, the last with the first row once more.
ROWS, BATCH_SIZE, ACCUMULATION = 23, 3, 2
STEPS_PER_EPOCH = 4
SETTINGS = FineTuning(
    steps=14, learning_rate=1e-2, batch_size=BATCH_SIZE, accumulation=ACCUMULATION, save_steps=7
)


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    context_format = ContextFormat(objectives=("helpful", "harmless"), encoding="levels")
    return tiny.write_policy(tmp_path_factory.mktemp("policy") / "base", context_format)


@pytest.fixture(scope="module")
def rows() -> list[TokenRow]:
    """No two alike, of 4 to 30 tokens with the end."""
    generator = random.Random(0)

    def tokens() -> tuple[int, ...]:
        return tuple(generator.randrange(20, 250) for _ in range(generator.randint(2, 15)))

    return [TokenRow(tokens(), tokens()[1:]) for _ in range(ROWS)]


def random_order(count: int) -> SeedableRandomSampler:
    """The sampler that accelerate gives a trainer."""
    return SeedableRandomSampler(range(count), data_seed=SEED)


def random_steps(count: int, *, rows_per_step: int, epoch: int, batch_size: int = 1) -> list[list[int]]:
    """What the steps of an epoch hold where nobody sorts; its last batch is filled up with its first rows."""
    sampler = random_order(count)
    sampler.set_epoch(epoch)
    order = list(sampler)
    order += order[: -count % batch_size]
    return [order[start : start + rows_per_step] for start in range(0, len(order), rows_per_step)]


def train(
    policy: Path, rows: Sequence[TokenRow], settings: FineTuning, work: Path
) -> tuple[PreTrainedModel, list[dict[str, float]], dict[str, float]]:
    """The trained model, and what was logged of each step and of all of them."""
    work.mkdir(exist_ok=True)
    out = Path(tempfile.mkdtemp(dir=work.parent))
    model, _ = fine_tune(policy, rows, settings, seed=SEED, folder=out, work=work)
    lines = (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    *steps, total = map(json.loads, lines)
    assert len(steps) == settings.steps
    return model, steps, total


def unpadded_steps(policy: Path, rows: Sequence[TokenRow]) -> Iterator[tuple[float, float]]:
    """Loss and gradient norm of each step before training, one row at a time: no padding, no trainer."""
    model = AutoModelForCausalLM.from_pretrained(policy)
    end = PolicyTokenizer(policy).end_id
    for epoch in itertools.count():
        for step in random_steps(
            len(rows), rows_per_step=BATCH_SIZE * ACCUMULATION, epoch=epoch, batch_size=BATCH_SIZE
        ):
            token_losses = []
            for row in (rows[number] for number in step):
                response = torch.tensor([*row.response, end])
                ids = torch.tensor([*row.prompt, *row.response])
                logits_LV = model(input_ids=ids[None]).logits[0, len(row.prompt) - 1 :]
                token_losses.append(torch.nn.functional.cross_entropy(logits_LV, response, reduction="none"))
            loss = torch.cat(token_losses).mean()
            gradients = torch.autograd.grad(loss, list(model.parameters()))
            yield loss.item(), torch.nn.utils.get_total_norm(gradients).item()


def tokens_in_batches(rows: Sequence[TokenRow], *, batch_size: int) -> int:
    """Tokens of all steps, padding included, where each is batched from its shortest row to its longest."""
    lengths = [len(row.prompt) + len(row.response) + 1 for row in rows]
    steps = itertools.chain.from_iterable(
        random_steps(len(rows), rows_per_step=BATCH_SIZE * ACCUMULATION, epoch=epoch, batch_size=BATCH_SIZE)
        for epoch in itertools.count()
    )
    total = 0
    for step in itertools.islice(steps, SETTINGS.steps):
        step_lengths = sorted(lengths[row] for row in step)
        batches = [step_lengths[start : start + batch_size] for start in range(0, len(step), batch_size)]
        total += sum(len(batch) * max(batch) for batch in batches)
    return total


def test_loss_and_gradient_of_a_step_are_those_of_its_rows_without_padding(
    policy: Path, rows: list[TokenRow], tmp_path: Path
) -> None:
    # At this rate no weight moves, so each step shows its rows alone.
    settings = SETTINGS.model_copy(update={"learning_rate": 1e-12})
    _, found, _ = train(policy, rows, settings, tmp_path / "work")
    expected = list(itertools.islice(unpadded_steps(policy, rows), settings.steps))
    assert settings.steps > 3 * STEPS_PER_EPOCH
    assert [entry["loss"] for entry in found] == pytest.approx([loss for loss, _ in expected], rel=1e-4)
    assert [entry["grad_norm"] for entry in found] == pytest.approx([norm for _, norm in expected], rel=1e-4)


def test_rows_of_a_step_by_length_in_any_number_of_batches_give_the_same_weights(
    policy: Path, rows: list[TokenRow], tmp_path: Path
) -> None:
    one = SETTINGS.model_copy(update={"batch_size": 6, "accumulation": 1})
    whole, _, padded = train(policy, rows, one, tmp_path / "one")
    batches, _, less_padded = train(policy, rows, SETTINGS, tmp_path / "several")
    start = AutoModelForCausalLM.from_pretrained(policy).state_dict()
    moved = max((value - start[name]).abs().max().item() for name, value in whole.state_dict().items())
    apart = [
        (value - batches.state_dict()[name]).abs().max().item() for name, value in whole.state_dict().items()
    ]
    assert moved > 1e-2
    assert max(apart) <= 1e-4
    # Transformers counts operations per token, padding included.
    assert less_padded["total_flos"] / padded["total_flos"] == pytest.approx(
        tokens_in_batches(rows, batch_size=BATCH_SIZE) / tokens_in_batches(rows, batch_size=6)
    )


def test_a_training_continued_within_an_epoch_goes_on_at_the_next_row(
    policy: Path, rows: list[TokenRow], tmp_path: Path
) -> None:
    whole, expected, _ = train(policy, rows, SETTINGS, tmp_path / "work")
    assert 7 % STEPS_PER_EPOCH
    shutil.rmtree(tmp_path / "work" / "checkpoint-14")
    assert (tmp_path / "work" / "checkpoint-7" / "complete").exists()
    continued, found, _ = train(policy, rows, SETTINGS, tmp_path / "work")
    assert [entry["loss"] for entry in found] == pytest.approx(
        [entry["loss"] for entry in expected], rel=1e-5
    )
    for name, value in whole.state_dict().items():
        assert (value - continued.state_dict()[name]).abs().max().item() <= 1e-5


@pytest.mark.parametrize("epoch", [0, 1, 5])
def test_a_step_holds_the_rows_of_a_random_order_shortest_first(epoch: int) -> None:
    generator = random.Random(1)
    lengths = [generator.randint(1, 9) for _ in range(23)]
    order = TrainingOrder(random_order(23), lengths, rows_per_step=6)
    order.set_epoch(epoch)
    found = list(order)
    assert len(order) == len(found) == 23
    for start, expected in zip(range(0, 23, 6), random_steps(23, rows_per_step=6, epoch=epoch), strict=True):
        step = found[start : start + 6]
        assert sorted(step) == sorted(expected)
        assert [lengths[row] for row in step] == sorted(lengths[row] for row in expected)


def test_processes_share_the_rows_of_a_step_and_read_like_lengths_at_once() -> None:
    lengths = random.Random(2).sample(range(100), 48)
    rows_per_step = 2 * BATCH_SIZE * ACCUMULATION

    def batches(process: int) -> list[list[int]]:
        loader = prepare_data_loader(
            DataLoader(TensorDataset(torch.arange(48)), batch_size=BATCH_SIZE, shuffle=True),
            num_processes=2,
            process_index=process,
            put_on_device=False,
            use_seedable_sampler=True,
            data_seed=SEED,
        )
        loader.set_sampler(TrainingOrder(loader.get_sampler(), lengths, rows_per_step=rows_per_step))
        # As after a restart: epoch 2, and the first step is done.
        continued = skip_first_batches(loader, ACCUMULATION)
        continued.set_epoch(2)
        return [batch.tolist() for (batch,) in continued]

    first, second = batches(0), batches(1)
    for number, expected in enumerate(random_steps(48, rows_per_step=rows_per_step, epoch=2)[1:]):
        found: list[int] = []
        for batch in range(number * ACCUMULATION, (number + 1) * ACCUMULATION):
            found += sorted(lengths[row] for row in first[batch] + second[batch])
        assert found == sorted(lengths[row] for row in expected)
