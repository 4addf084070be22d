"""`preforch weights --file FILE`: the recommended weights of many prompts, in the order of their lines.

In:  lines of prompts or conversations.
Out: a JSON line for each, as soon as its batch is answered; with `--out` in a file that a later run goes on
     with.

A gateway that is away or busy is waited for. To weigh a prompt changes nothing, so that a request whose
answer got lost is made again.
"""

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import BinaryIO, Literal

from preforch_client import BadRequest, Client, Recommendation, ServiceFailed, ServiceUnavailable
from preforch_client.retries import delay
from tqdm import tqdm

from preforch_cli.errors import CommandFailed
from preforch_cli.prompt_lines import Content, Format, PromptLine, format_of, read_lines
from preforch_cli.result_file import growing_file, result_line, skip_done

STDIN = "-"
Outcome = Recommendation | ValueError
"""Of a line: its weights, or what is wrong with it."""
_REFUSES_INPUTS = frozenset({400, 413, 422})
"""Statuses by which a gateway refuses what it was sent, and not who sent it or where to."""
_PASSING = frozenset({502, 504})
"""Statuses of a proxy whose gateway is away."""


@dataclass(frozen=True)
class BulkOptions:
    """`out`: None for stdout. `batch`: lines in a request. `patience`: seconds for a gateway that is away."""

    file: str
    out: Path | None = None
    format: Format | None = None
    batch: int = 256
    bad_lines: Literal["stop", "write"] = "stop"
    patience: float = 600.0

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise ValueError(f"--batch is {self.batch}; it must be 1 or more")
        if not self.patience >= 0:
            raise ValueError(f"--patience is {self.patience}; it must be 0 or more")


def weigh_file(client: Client, options: BulkOptions) -> None:
    """All lines that have no result yet. Raises ValueError for a bad line, unless those are written."""
    with ExitStack() as opened:
        source, total = sys.stdin.buffer, None
        if options.file != STDIN:
            source = opened.enter_context(Path(options.file).open("rb"))
            total = sum(1 for line in source if line.strip())
            source.seek(0)
        lines = read_lines(source, options.format or format_of(options.file))
        target, done = sys.stdout.buffer, 0
        if options.out is not None:
            target = opened.enter_context(growing_file(options.out))
            done, lines = skip_done(target, lines)
        # Without a terminal nobody looks at it.
        bar = opened.enter_context(
            tqdm(total=total, initial=done, unit="prompt", disable=None, file=sys.stderr, dynamic_ncols=True)
        )
        counted, complete = Counter(done=done), False
        try:
            for results in _batches(client, lines, options):
                _write(target, results, options, counted)
                bar.update(len(results))
            complete = True
        finally:
            bar.close()
            print(_summary(counted, options.out, complete=complete), file=sys.stderr)


def _batches(
    client: Client, lines: Iterator[PromptLine], options: BulkOptions
) -> Iterator[list[tuple[PromptLine, Outcome]]]:
    """Lines with what became of them, batch by batch."""

    def ask(inputs: Sequence[Content]) -> tuple[Recommendation, ...]:
        return weigh_patiently(client, inputs, patience=options.patience, say=_say)

    while batch := list(islice(lines, options.batch)):
        outcomes: dict[int, Outcome] = {
            line.number: line.content for line in batch if isinstance(line.content, ValueError)
        }
        readable = [(line.number, line.content) for line in batch if not isinstance(line.content, ValueError)]
        outcomes |= weigh_each(ask, readable)
        yield [(line, outcomes[line.number]) for line in batch]


def weigh_each(
    ask: Callable[[Sequence[Content]], Sequence[Recommendation]], inputs: Sequence[tuple[int, Content]]
) -> Mapping[int, Outcome]:
    """The outcomes of numbered inputs. What is refused together is halved until one is left."""
    if not inputs:
        return {}
    try:
        recommended = ask([content for _, content in inputs])
    except BadRequest as error:
        if error.status not in _REFUSES_INPUTS:
            raise
        if len(inputs) == 1:
            return {inputs[0][0]: ValueError(f"is refused by the gateway: {error}")}
        middle = len(inputs) // 2
        return {**weigh_each(ask, inputs[:middle]), **weigh_each(ask, inputs[middle:])}
    if len(recommended) != len(inputs):
        raise CommandFailed(f"the gateway answered {len(inputs)} prompts with {len(recommended)} results")
    return {number: result for (number, _), result in zip(inputs, recommended, strict=True)}


def weigh_patiently(
    client: Client, inputs: Sequence[Content], *, patience: float, say: Callable[[str], None]
) -> tuple[Recommendation, ...]:
    """One request, made again for `patience` seconds while the gateway is away or busy."""
    until = None
    for retry in count(1):
        try:
            return client.weights(inputs=inputs)
        except (ServiceUnavailable, ServiceFailed) as error:
            if isinstance(error, ServiceFailed) and error.status not in _PASSING:
                raise
            if until is None:
                until = time.monotonic() + patience
                say(f"{error}; trying again for up to {patience:g} seconds")
            wait = delay(retry, error.retry_after)
            if time.monotonic() + wait > until:
                raise
            time.sleep(wait)
    raise AssertionError("a count has no end")


def _write(
    target: BinaryIO,
    results: Sequence[tuple[PromptLine, Outcome]],
    options: BulkOptions,
    counted: Counter[str],
) -> None:
    """Append the results of a batch, up to a line that stops it."""
    with ExitStack() as written:
        written.callback(target.flush)
        for line, outcome in results:
            if isinstance(outcome, Recommendation):
                target.write(result_line(line, outcome.model_dump()))
                counted["fallback"] += outcome.source == "fallback"
            elif options.bad_lines == "write":
                target.write(result_line(line, {"error": str(outcome)}))
                counted["bad"] += 1
            else:
                name = "standard input" if options.file == STDIN else options.file
                raise ValueError(
                    f"{name}, line {line.number}: {outcome} (--bad-lines write goes on after such a line)"
                )
            counted["done"] += 1


def _summary(counted: Mapping[str, int], out: Path | None, *, complete: bool) -> str:
    said = [f"{counted['done']} lines have results{'' if out is None else f' in {out}'}"]
    if counted["bad"]:
        said.append(f"{counted['bad']} of this run are bad lines, written as errors")
    if counted["fallback"]:
        said.append(f"{counted['fallback']} of this run are fallback weights, as `reason` says")
    if out is not None and not complete:
        said.append("the same command goes on from here")
    return "; ".join(said)


def _say(text: str) -> None:
    """A line above the progress bar."""
    tqdm.write(f"preforch: {text}", file=sys.stderr)
