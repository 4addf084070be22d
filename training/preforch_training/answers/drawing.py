"""A policy's answers, turn by turn: all first turns in one go, then all second ones."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from preforch_models.conversation import Message
from preforch_models.weights import Weights
from tqdm import tqdm

from preforch_training.answers.questions import Answer, Key, Question, Turn
from preforch_training.answers.weighing import Weigher
from preforch_training.policy.tokenizer import PolicyTokenizer
from preforch_training.sampling.vllm import Generation, Sampler, SampleRequest


@dataclass(frozen=True)
class Decoding:
    """`temperature`: of a question, in its benchmark's words or the run's. `seed_of`: (key of a question,
    number of a turn) -> the seed of its answer, so that none depends on the other questions of a file."""

    temperature: Callable[[Question], float]
    top_p: float
    max_tokens: int
    seed_of: Callable[[Key, int], int]


def conversation(question: Question, answers: Sequence[str]) -> tuple[Message, ...]:
    """The turns that are answered already, and the one after them."""
    messages = []
    for asked, answer in zip(question.turns, answers, strict=False):
        messages += [Message(role="user", content=asked), Message(role="assistant", content=answer)]
    return (*messages, Message(role="user", content=question.turns[len(answers)]))


def check_room(questions: Sequence[Question], weights: Weights, policy: Path, max_tokens: int) -> None:
    """Raise ValueError where the policy's max_model_len does not hold a question with answers as long as they
    may be: better now than after hours, at the second turn. `weights`: any, since all are written as long."""
    reader = PolicyTokenizer(policy)
    limit = reader.card.max_model_len
    lengths = []
    for question in tqdm(questions, desc="tokenise", unit="questions", leave=False):
        messages = conversation(question, [""] * (len(question.turns) - 1))
        lengths.append(len(reader.prompt_ids(messages, weights)))
    rooms = [(limit - n) // len(q.turns) for n, q in zip(lengths, questions, strict=True)]
    worst = min(range(len(rooms)), key=rooms.__getitem__)
    if rooms[worst] < max_tokens:
        turns, room = len(questions[worst].turns), rooms[worst]
        count = sum(room < max_tokens for room in rooms)
        allowed = f"--max-tokens {room} at most, or " if room > 0 else ""
        raise ValueError(
            f"{questions[worst].where}: {lengths[worst]} tokens and {turns} answer(s) of up to {max_tokens} "
            f"exceed the policy's max_model_len {limit}, as do {count} question(s) in all; allowed are "
            f"{allowed}questions that leave room"
        )


def draw_answers(
    questions: Sequence[Question], weigh: Weigher, sampler: Sampler, policy: Path, decoding: Decoding
) -> list[Answer]:
    """One answer to every turn of every question, in their order. On a GPU each temperature of a round of
    turns starts an engine."""
    reader = PolicyTokenizer(policy)
    reads_weights = reader.card.conditioning.reads_weights
    turns: list[list[Turn]] = [[] for _ in questions]
    for number in range(max(len(question.turns) for question in questions)):
        open_ones = [i for i, question in enumerate(questions) if number < len(question.turns)]
        asked = [questions[i] for i in open_ones]
        conversations = [conversation(questions[i], [turn.text for turn in turns[i]]) for i in open_ones]
        weights = weigh(conversations)
        requests = [
            SampleRequest(messages, one, n=1, seed=decoding.seed_of(question.key, number))
            for messages, one, question in zip(conversations, weights, asked, strict=True)
        ]
        calls = [
            (decoding.temperature(question), min(decoding.max_tokens, _room(request, reader)))
            for question, request in zip(asked, requests, strict=True)
        ]
        drawn = _draw(requests, calls, sampler, policy, decoding.top_p)
        for i, one, generation in zip(open_ones, weights, drawn, strict=True):
            turns[i].append(_turn(generation, one if reads_weights else None))
    return [Answer(question, tuple(found)) for question, found in zip(questions, turns, strict=True)]


def _room(request: SampleRequest, reader: PolicyTokenizer) -> int:
    """Tokens that a prompt leaves. `check_room` has seen to it, unless an earlier answer is longer when it is
    read again, as one is that was cut inside a character."""
    return reader.card.max_model_len - len(reader.prompt_ids(request.messages, request.weights))


def _draw(
    requests: Sequence[SampleRequest],
    calls: Sequence[tuple[float, int]],
    sampler: Sampler,
    policy: Path,
    top_p: float,
) -> list[Generation]:
    """One response to each, in order. `calls`: temperature and limit of tokens of each, which all of one call
    of the sampler share. Where there is no room, the response is empty."""
    found: dict[int, Generation] = {}
    for call in sorted(set(calls)):
        temperature, max_tokens = call
        rows = [i for i, one in enumerate(calls) if one == call]
        if max_tokens < 1:
            found |= dict.fromkeys(rows, Generation((), "", finished=False))
            continue
        answers = sampler.sample(
            policy,
            [requests[i] for i in rows],
            temperature=temperature,
            top_p=top_p,
            max_tokens=max_tokens,
        )
        found |= {i: generations[0] for i, generations in zip(rows, answers, strict=True)}
    return [found[i] for i in range(len(requests))]


def _turn(generation: Generation, weights: Weights | None) -> Turn:
    # As AlpacaEval and FastChat do with what they generate.
    return Turn(generation.text.strip(), len(generation.token_ids), weights, generation.finished)
