"""Mutation testing: do tests notice when the method's code is wrong? `make mutants`, outside of CI.

    python tests/mutants.py [PART OF A MODULE'S PATH ...] [--jobs 2] [--sample 40] [--seed 0]

In:  the modules of `TESTS`, each with the tests that answer for it.
Out: for every module how many of its mutants (`mutations`) these tests kill, and the change and line of each
     that survives; exit status 1 where fewer than 90% of all are killed.

A mutant is judged in a process of its own, forked from one that has imported the libraries, torch among them,
and nothing of the project: a second or two each. What a test starts in another process sees no mutant.
Survivors are explained in docs/mutants.md. The library mutmut was read and not taken in place of this: it
credits what a fixture shared by a module calls to the first test of that module alone, and it leaves out
properties and conditions.
"""

import argparse
import gc
import importlib
import math
import multiprocessing
import os
import random
import resource
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess
from pathlib import Path
from types import CodeType

import pytest
from mutations import Mutant, mutants

ROOT = Path(__file__).parents[1]
MODELS, TRAINING = "models/preforch_models", "training/preforch_training"
TESTS: dict[str, list[str]] = {
    f"{MODELS}/weights.py": ["models/test_weights.py"],
    f"{MODELS}/context.py": ["models/test_context.py"],
    f"{MODELS}/control_strings.py": ["models/test_context.py"],
    f"{MODELS}/score_format.py": ["models/test_score_format.py"],
    f"{MODELS}/conditioning/members.py": ["models/test_members.py"],
    f"{MODELS}/conditioning/mixture.py": ["models/test_conditioning.py"],
    f"{MODELS}/calibration.py": ["training/scores/test_calibration.py"],
    f"{TRAINING}/orchestrator/targets.py": ["training/orchestrator/test_targets.py"],
    f"{TRAINING}/scores/calibration.py": [
        "training/scores/test_calibration.py",
        "training/scores/test_scores_stage.py",
    ],
    f"{TRAINING}/scores/pairs.py": ["training/scores/test_scores_pairs.py"],
    f"{TRAINING}/scores/table.py": ["training/scores/test_scores_table.py"],
    f"{TRAINING}/scores/stage.py": ["training/scores/test_scores_stage.py"],
    f"{TRAINING}/policy/known_responses.py": [
        "training/policy/test_known_responses.py",
        "training/policy/kinds/test_wic_rows.py",
    ],
    f"{TRAINING}/policy/kinds/online_samples.py": ["training/policy/kinds/test_online_samples.py"],
    f"{TRAINING}/policy/kinds/wic.py": [
        "training/policy/kinds/test_wic_rows.py",
        "training/policy/test_policy_recipes.py",
        "training/policy/kinds/test_wic.py",
    ],
    f"{TRAINING}/policy/kinds/sft.py": [
        "training/policy/test_policy_recipes.py",
        "training/policy/kinds/test_sft_policy.py",
    ],
    f"{TRAINING}/policy/weighting.py": ["training/policy/test_weighting.py"],
    f"{TRAINING}/policy/merged/adapters.py": ["training/policy/merged/test_adapters.py"],
    f"{TRAINING}/policy/merged/parameters.py": ["training/policy/merged/test_merging.py"],
    f"{TRAINING}/policy/reinforced/combine.py": ["training/policy/reinforced/test_combine.py"],
    f"{TRAINING}/policy/reinforced/repetition.py": ["training/policy/reinforced/test_repetition.py"],
    f"{TRAINING}/policy/reinforced/reward.py": ["training/policy/reinforced/test_advantages.py"],
    f"{TRAINING}/policy/kinds/ric.py": ["training/policy/kinds/test_ric.py"],
    f"{TRAINING}/policy/kinds/soup.py": ["training/policy/kinds/test_soup.py"],
    f"{TRAINING}/policy/kinds/mod.py": ["training/policy/kinds/test_mod.py"],
    f"{TRAINING}/sampling/mixture.py": ["training/sampling/test_mixture.py"],
    f"{TRAINING}/policy/stage.py": [
        "training/policy/test_policy_recipes.py",
        "training/policy/test_policy_stage.py",
    ],
    f"{TRAINING}/policy/task.py": [
        "training/policy/test_policy_recipes.py",
        "training/policy/kinds/test_wic.py",
        "training/policy/test_policy_task.py",
        "training/tuning/test_tracking.py::test_names_say_run_stage_and_objective_fold_or_round",
    ],
}
PLUGINS = ("pytest_timeout", "_hypothesis_pytestplugin")
WANTED = 0.9
FORK = multiprocessing.get_context("fork")


@dataclass(frozen=True)
class Verdict:
    """What the tests of a module said: the first that failed, or "" where all passed."""

    killer: str
    cpu_seconds: float
    libraries: tuple[str, ...] = ()


class Changed(SourceFileLoader):
    """Imports one module from other code."""

    def __init__(self, path: Path, code: CodeType) -> None:
        super().__init__(".".join(path.relative_to(ROOT).with_suffix("").parts[1:]), str(path))
        self._code = code

    def get_code(self, fullname: str) -> CodeType:
        return self._code


class Finder(MetaPathFinder):
    """Finds the changed module, and leaves the others to who comes next."""

    def __init__(self, changed: Changed) -> None:
        self._changed = changed

    def find_spec(self, fullname: str, path: object, target: object = None) -> ModuleSpec | None:
        if fullname != self._changed.name:
            return None
        return spec_from_file_location(fullname, self._changed.path, loader=self._changed)


class Observer:
    """Remembers the first test that fails; hypothesis tries the same examples each time and shrinks none."""

    def __init__(self) -> None:
        self.failed = ""

    def pytest_configure(self) -> None:
        from hypothesis import Phase, settings

        phases = (Phase.explicit, Phase.generate)
        settings.register_profile("mutants", max_examples=30, phases=phases, derandomize=True, database=None)
        settings.load_profile("mutants")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and not self.failed:
            self.failed = report.nodeid


def run_tests(tests: Iterable[str], changed: Changed | None, answer: Connection) -> None:
    """In a child: run the tests, say what happened."""
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    os.dup2(silent, 2)
    if changed:
        sys.meta_path.insert(0, Finder(changed))
    # The other plugins take longer to import than most tests to run.
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    options = ["-x", "-q", "-p", "no:cacheprovider", f"--rootdir={ROOT}"]
    for plugin in PLUGINS:
        options += ["-p", plugin]
    observer = Observer()
    status = pytest.main([*options, *(str(ROOT / "tests" / test) for test in tests)], [observer])
    killer = observer.failed or ("" if status == 0 else "collection")
    answer.send(Verdict(killer, time.process_time(), tuple(libraries())))


def libraries() -> Iterator[str]:
    """What is imported now and belongs to other projects, in order of import. Plugins stay for pytest."""
    for name, module in list(sys.modules.items()):
        origin = getattr(getattr(module, "__spec__", None), "origin", None) or ""
        if "site-packages" in origin and not name.startswith((*PLUGINS, "_pytest", "preforch_")):
            yield name


def judge(
    tests: Sequence[str], changes: Sequence[Changed | None], *, jobs: int, cpu_seconds: int
) -> list[Verdict]:
    """One verdict for each change, in order. Who takes more CPU time than allowed is killed."""
    verdicts: dict[int, Verdict] = {}
    running: dict[Connection, tuple[int, ForkProcess]] = {}
    waiting = list(enumerate(changes))
    while waiting or running:
        while waiting and len(running) < jobs:
            number, changed = waiting.pop(0)
            ours, theirs = FORK.Pipe(duplex=False)
            child = FORK.Process(target=_limited, args=(tests, changed, theirs, cpu_seconds))
            child.start()
            theirs.close()
            running[ours] = (number, child)
        for ready in wait(list(running)):
            assert isinstance(ready, Connection)
            number, child = running.pop(ready)
            try:
                verdicts[number] = ready.recv()
            except EOFError:
                verdicts[number] = Verdict("out of time", cpu_seconds)
            child.join()
    return [verdicts[number] for number in range(len(changes))]


def _limited(tests: Sequence[str], changed: Changed | None, answer: Connection, cpu_seconds: int) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    run_tests(tests, changed, answer)


def import_libraries(module: str) -> None:
    """Import here what the tests of a module import from other projects, and see that they pass."""
    (untouched,) = judge(TESTS[module], [None], jobs=1, cpu_seconds=600)
    if untouched.killer:
        raise SystemExit(f"{module}: {untouched.killer} fails without any mutant")
    for name in untouched.libraries:
        with suppress(ImportError):  # a part of a library that is there under another name
            importlib.import_module(name)
    gc.freeze()  # pytest collects garbage at its end, and would look at all of torch


def judge_module(module: str, *, jobs: int, sample: int, seed: int) -> tuple[int, int]:
    """Judge the mutants of a module and print what came out. How many were killed, of how many."""
    path, tests = ROOT / module, TESTS[module]
    import_libraries(module)
    (untouched,) = judge(tests, [None], jobs=1, cpu_seconds=600)
    every = mutants(path.read_text(encoding="utf-8"), str(path))
    chosen = every
    if 0 < sample < len(every):
        chosen = sorted(random.Random(seed).sample(every, sample), key=lambda mutant: mutant.line)
    limit = 5 + 5 * math.ceil(untouched.cpu_seconds)
    start = time.perf_counter()
    verdicts = judge(tests, [Changed(path, mutant.code) for mutant in chosen], jobs=jobs, cpu_seconds=limit)
    killed = sum(bool(verdict.killer) for verdict in verdicts)
    print(
        f"{module}: {killed} of {len(chosen)} killed ({killed / len(chosen):.0%}), of {len(every)} mutants; "
        f"{time.perf_counter() - start:.0f} s"
    )
    print("".join(_lines(module, chosen, verdicts)), end="", flush=True)
    return killed, len(chosen)


def _lines(module: str, chosen: Sequence[Mutant], verdicts: Sequence[Verdict]) -> Iterable[str]:
    for mutant, verdict in zip(chosen, verdicts, strict=True):
        if not verdict.killer:
            yield f"  survived  {Path(module).name}:{mutant.line}  {mutant.change}\n"


def main() -> int:
    """Judge all modules, or those that are named."""
    parser = argparse.ArgumentParser(description="Mutation testing of the method's code.")
    parser.add_argument("parts", nargs="*", help="only modules whose path holds one of these")
    parser.add_argument("--jobs", type=int, default=2, help="mutants judged at a time")
    parser.add_argument("--sample", type=int, default=0, help="at most so many mutants of a module; 0: all")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    args = parser.parse_args()
    modules = [module for module in TESTS if not args.parts or any(part in module for part in args.parts)]
    counts = [judge_module(module, jobs=args.jobs, sample=args.sample, seed=args.seed) for module in modules]
    killed, total = (sum(column) for column in zip(*counts, strict=True))
    print(f"all: {killed} of {total} killed ({killed / total:.1%})")
    return int(killed < WANTED * total)


if __name__ == "__main__":
    sys.exit(main())
