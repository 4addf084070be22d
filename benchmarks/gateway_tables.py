"""The tables of `gateway.py`.

In:  what was measured, by cell (mode and clients) and arm, one entry per round; bare vLLM is the first arm.
Out: Markdown lines.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from load import Result
from preforch_training.statistics.markdown import table
from rounds import mean, ratio, spread
from servers import Server

NONE = ""


@dataclass(frozen=True)
class Arm:
    """A way to the engine, and the server that clients talk to."""

    name: str
    server: Server


@dataclass(frozen=True)
class Cell:
    """Whole answers or streams, and how many clients at once."""

    mode: str
    clients: int


@dataclass(frozen=True)
class Measured:
    """One arm in one cell of one round. CPU seconds of what is in front of the engine, and of the engine."""

    result: Result
    front_cpu: float
    engine_cpu: float

    @property
    def requests(self) -> int:
        """Answered."""
        return len(self.result.whole)


Rounds = Sequence[Measured]
Table = dict[Cell, dict[str, list[Measured]]]


def per_round(rounds: Rounds, figure: Callable[[Measured], float]) -> np.ndarray:
    """One figure of every round."""
    return np.array([figure(measured) for measured in rounds])


def rate(measured: Measured) -> float:
    """Requests per second of wall clock."""
    return measured.requests / measured.result.seconds


def token_rate(measured: Measured) -> float:
    """Generated tokens per second of wall clock."""
    return measured.result.tokens / measured.result.seconds


def first_ms(measured: Measured) -> float:
    """Median time to the first byte, ms."""
    return 1000 * float(np.median(measured.result.first))


def front_ms(measured: Measured) -> float:
    """CPU time in front of the engine per request, ms."""
    return 1000 * measured.front_cpu / measured.requests


def engine_ms(measured: Measured) -> float:
    """CPU time of the engine per request, ms."""
    return 1000 * measured.engine_cpu / measured.requests


def event_us(measured: Measured) -> float:
    """CPU time in front of the engine per event of a stream, microseconds."""
    return 1e6 * measured.front_cpu / measured.result.events


def tables(found: Table) -> list[str]:
    """Speed, CPU time, and what the encoder costs."""
    return [*speed(found), "", *cpu(found), "", *split(found), "", *notes(found)]


def speed(found: Table) -> list[str]:
    """Throughput and time to the first byte, against bare vLLM."""
    header = [
        *("mode", "clients", "arm", "requests/s", "tokens/s", "requests/s by bare [95%]"),
        *("first byte, ms, median / p95", "added to the median, ms [95%]"),
    ]
    rows = []
    for cell, by_arm in found.items():
        bare = next(iter(by_arm.values()))
        for name, rounds in by_arm.items():
            first = 1000 * np.concatenate([measured.result.first for measured in rounds])
            against: list[str] = [NONE, NONE]
            if rounds is not bare:
                added = per_round(rounds, first_ms) - per_round(bare, first_ms)
                against = [ratio(per_round(rounds, rate), per_round(bare, rate)), mean(added)]
            speeds = [f"{per_round(rounds, figure).mean():.1f}" for figure in (rate, token_rate)]
            rows.append([cell.mode, cell.clients, name, *speeds, against[0], spread(first), against[1]])
    return table(header, rows).splitlines()


def cpu(found: Table) -> list[str]:
    """CPU time per request and per event, against the first proxy."""
    header = [
        *("mode", "clients", "arm", "in front, CPU ms per request [95%]", "engine, CPU ms per request [95%]"),
        *("in front, CPU µs per event [95%]", "per event by the first proxy [95%]"),
        *("µs for one more event [95%]", "by the first proxy [95%]"),
    ]
    rows = []
    for cell, by_arm in found.items():
        bare, proxy, *_ = by_arm
        whole = found.get(Cell("whole", cell.clients))
        figures = []
        if cell.mode == "stream":
            figures.append({name: per_round(rounds, event_us) for name, rounds in by_arm.items()})
        if cell.mode == "stream" and whole is not None:
            figures.append({name: more_us(rounds, whole[name]) for name, rounds in by_arm.items()})
        for name, rounds in by_arm.items():
            shown = [NONE] * 4
            for place, figure in enumerate(figures if name != bare else []):
                against = NONE if name == proxy else ratio(figure[name], figure[proxy])
                shown[2 * place : 2 * place + 2] = mean(figure[name]), against
            front = NONE if name == bare else mean(per_round(rounds, front_ms))
            rows.append([cell.mode, cell.clients, name, front, mean(per_round(rounds, engine_ms)), *shown])
    return table(header, rows).splitlines()


def more_us(stream: Rounds, whole: Rounds) -> np.ndarray:
    """CPU time of one more event, microseconds: what a stream costs over a whole answer, per event."""
    more = 1000 * (per_round(stream, front_ms) - per_round(whole, front_ms))
    events: np.ndarray = more / per_round(stream, lambda measured: measured.result.events / measured.requests)
    return events


def split(found: Table) -> list[str]:
    """What recommending costs: CPU time of the gateway with recommended weights minus that with user's."""
    header = ["mode", "clients", "recommending, CPU ms per prompt [95%]", "engine, CPU ms per request [95%]"]
    header += ["recommending by engine [95%]"]
    rows = []
    for cell, by_arm in found.items():
        user, new, _seen = list(by_arm.values())[-3:]
        encoder, engine = per_round(new, front_ms) - per_round(user, front_ms), per_round(new, engine_ms)
        rows.append([cell.mode, cell.clients, mean(encoder), mean(engine), mean(encoder / engine)])
    return table(header, rows).splitlines()


def notes(found: Table) -> list[str]:
    """How to read the tables, and whether every gateway arm did what its name says."""
    every = [
        (name, rounds) for by_arm in found.values() for name, rounds in by_arm.items() if "gateway" in name
    ]
    sources: dict[str, dict[str, int]] = {}
    for name, rounds in every:
        for measured in rounds:
            for source, count in measured.result.sources.items():
                counted = sources.setdefault(name, {})
                counted[source] = counted.get(source, 0) + count
    return [
        "A stream's first byte comes with its first token; a whole answer's with its last.",
        "Intervals are 95% t intervals over rounds; ratios are geometric means.",
        *(f"Sources of the weights, {name}: {counts}." for name, counts in sources.items()),
    ]
