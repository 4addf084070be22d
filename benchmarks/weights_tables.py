"""The tables of `weights.py`.

In:  what was measured, by arm (server and way of asking), one entry per round.
Out: Markdown lines.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from preforch_training.statistics.markdown import table
from rounds import mean, ratio, spread


@dataclass(frozen=True)
class Way:
    """How a server is asked: by how many clients at once, and how many prompts in one request."""

    clients: int
    batch: int

    def __str__(self) -> str:
        """As a table shows it."""
        return f"batches of {self.batch}" if self.batch > 1 else f"single, {self.clients} at once"


@dataclass(frozen=True)
class Measured:
    """One arm in one round; times in seconds. `latencies`: of each request."""

    prompts: int
    seconds: float
    cpu: float
    latencies: tuple[float, ...]


Rounds = Sequence[Measured]
Table = dict[tuple[str, Way | None], list[Measured]]
"""By name and way of asking; a loop is not asked."""

LIMIT = ("raw, sorted", None)


def per_round(rounds: Rounds, figure: Callable[[Measured], float]) -> np.ndarray:
    """One figure of every round."""
    return np.array([figure(measured) for measured in rounds])


def rate(measured: Measured) -> float:
    """Prompts per second."""
    return measured.prompts / measured.seconds


def cpu_ms(measured: Measured) -> float:
    """CPU time per prompt, ms."""
    return 1000 * measured.cpu / measured.prompts


def tables(found: Table) -> list[str]:
    """Every arm against the limit, then ours against every peer."""
    return [*against_limit(found), "", *against_peers(found), "", *NOTES]


def against_limit(found: Table) -> list[str]:
    """Throughput, latency and CPU time of every arm."""
    header = ["arm", "asked", "prompts/s", "by the sorted raw loop [95%]", "request, ms, median / p95"]
    header += ["CPU ms per prompt [95%]"]
    rows = []
    for (name, way), rounds in found.items():
        against = (
            "" if (name, way) == LIMIT else ratio(per_round(rounds, rate), per_round(found[LIMIT], rate))
        )
        latencies = [1000 * seconds for measured in rounds for seconds in measured.latencies]
        cpu = mean(per_round(rounds, cpu_ms))
        speed = f"{per_round(rounds, rate).mean():.1f}"
        rows.append(
            [
                name,
                "" if way is None else way,
                speed,
                against,
                spread(np.array(latencies)) if latencies else "",
                cpu,
            ]
        )
    return table(header, rows).splitlines()


def against_peers(found: Table) -> list[str]:
    """Prompts per second of ours by those of a peer that is asked the same way."""
    peers = list(dict.fromkeys(name for name, way in found if way is not None and name != "ours"))
    ways = [way for name, way in found if name == "ours"]
    rows = []
    for way in ways:
        mine = per_round(found["ours", way], rate)
        cells = [ratio(mine, per_round(found[p, way], rate)) if (p, way) in found else "" for p in peers]
        rows.append([way, *cells])
    return table(["ours, prompts/s by", *(f"{peer} [95%]" for peer in peers)], rows).splitlines()


NOTES = (
    "Batches are sent by one client. An empty cell: that server takes no batches.",
    "Intervals are 95% t intervals over rounds; "
    "ratios are geometric means, above 1 where the first is faster.",
)
