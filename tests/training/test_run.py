"""A run: skipped when up to date, built again when anything changed, continued after a failure."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from preforch_models.context import ContextFormat
from preforch_models.conversation import Message
from preforch_models.manifest import ArtifactError, Manifest, read_manifest, verify
from preforch_models.objectives import Objective
from preforch_training.records import PreferencePair, Prompt, write_records
from preforch_training.run import Outcome, Run, origin_of, work_folder


class Builder:
    """A stage that counts its builds and fails when it is told to."""

    def __init__(self) -> None:
        self.builds = 0
        self.fail = False
        self.found: list[list[str]] = []

    def __call__(self, folder: Path, work: Path) -> Outcome:
        self.builds += 1
        self.found.append(sorted(path.name for path in work.iterdir() if path.name != "key"))
        (work / f"checkpoint-{self.builds}").write_text("so far", encoding="utf-8")
        (folder / "result.txt").write_text("half", encoding="utf-8")
        if self.fail:
            raise RuntimeError("killed")
        (folder / "result.txt").write_text(f"build {self.builds}", encoding="utf-8")
        return Outcome(counts={"builds": self.builds}, metrics={"loss": 0.5})


def run_in(folder: Path, *, seed: int = 1) -> Run:
    objectives = (Objective(name="a"), Objective(name="b"))
    context_format = ContextFormat(objectives=("a", "b"))
    return Run(
        folder=folder, seed=seed, objectives=objectives, context_format=context_format, preset="recommended"
    )


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return run_in(tmp_path)


def make(
    run: Run, builder: Builder, *, inputs: dict[str, Path] | None = None, kind: str = "demo", **config: Any
) -> Manifest:
    return run.make(run.scores, kind=kind, config=config, inputs=inputs or {}, build=builder)


def make_input(run: Run, text: str) -> Path:
    def build(folder: Path, work: Path) -> Outcome:
        (folder / "input.txt").write_text(text, encoding="utf-8")
        return Outcome()

    run.make(run.data, kind="data", config={"text": text}, inputs={}, build=build)
    return run.data


def test_a_stage_is_built_once_and_skipped_when_it_is_up_to_date(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    builder = Builder()
    first = make(run, builder, size=1)
    second = make(run, builder, size=1)
    assert builder.builds == 1
    assert first == second == verify(run.scores, kind="demo")
    assert "scores: up to date" in capsys.readouterr().err


def test_the_manifest_says_how_it_was_made(run: Run) -> None:
    manifest = make(run, Builder(), inputs={"data": make_input(run, "a")}, size=1)
    assert manifest.config == {"size": 1}
    assert manifest.counts == {"builds": 1}
    assert manifest.metrics == {"loss": 0.5}
    assert manifest.inputs.keys() == {"data"}
    assert manifest.peak_memory_mib > 10
    assert {"preference-orchestrator", "torch", "transformers"} == manifest.versions.keys()


def test_another_config_builds_it_again(run: Run) -> None:
    builder = Builder()
    make(run, builder, size=1)
    make(run, builder, size=2)
    assert builder.builds == 2
    assert (run.scores / "result.txt").read_text(encoding="utf-8") == "build 2"


def test_a_changed_input_builds_it_again_and_the_same_input_made_anew_does_not(run: Run) -> None:
    builder = Builder()
    for text, builds in (("a", 1), ("a", 1), ("b", 2), ("a", 3)):
        make(run, builder, inputs={"data": make_input(run, text)})
        assert builder.builds == builds


def test_an_input_that_is_not_there_is_an_error_that_names_it(run: Run) -> None:
    with pytest.raises(ArtifactError, match=r"data: no manifest\.json"):
        make(run, Builder(), inputs={"data": run.data})


def test_an_artifact_of_another_kind_at_the_place_is_not_overwritten(run: Run) -> None:
    make(run, Builder(), kind="demo")
    with pytest.raises(ArtifactError, match=r"expected a 'other'; delete .*scores to build it again"):
        make(run, Builder(), kind="other")
    assert read_manifest(run.scores).kind == "demo"


def test_a_failed_build_leaves_the_old_artifact_and_its_work_which_the_next_try_finds(run: Run) -> None:
    builder = Builder()
    make(run, builder, size=1)
    builder.fail = True
    with pytest.raises(RuntimeError, match="killed"):
        make(run, builder, size=2)
    assert (run.scores / "result.txt").read_text(encoding="utf-8") == "build 1"
    assert sorted(path.name for path in run.folder.iterdir()) == [".scores.work", "scores"]
    builder.fail = False
    make(run, builder, size=2)
    assert builder.found == [[], [], ["checkpoint-2"]]
    assert sorted(path.name for path in run.folder.iterdir()) == ["scores"]


def test_an_error_before_there_is_anything_to_continue_from_leaves_nothing(run: Run) -> None:
    def build(folder: Path, work: Path) -> Outcome:
        raise ValueError("wrong input")

    with pytest.raises(ValueError, match="wrong input"):
        run.make(run.scores, kind="demo", config={}, inputs={}, build=build)
    assert list(run.folder.iterdir()) == []


def test_work_that_a_kill_left_beside_a_finished_artifact_is_removed(run: Run) -> None:
    builder = Builder()
    make(run, builder)
    work_folder(run.scores).mkdir()
    make(run, builder)
    assert sorted(path.name for path in run.folder.iterdir()) == ["scores"]


def test_a_model_folder_is_known_by_its_files_and_a_hub_id_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "weights").write_text("a", encoding="utf-8")
    before = origin_of(str(tmp_path))
    assert origin_of(str(tmp_path)) == before
    (tmp_path / "weights").write_text("b", encoding="utf-8")
    assert origin_of(str(tmp_path)) != before
    assert origin_of("org/model") == "org/model"
    assert origin_of("") == ""


@pytest.mark.parametrize("change", ["config", "input"])
def test_the_work_of_another_recipe_is_wiped(run: Run, change: str) -> None:
    builder = Builder()
    builder.fail = True
    with pytest.raises(RuntimeError, match="killed"):
        make(run, builder, size=1, inputs={"data": make_input(run, "a")})
    builder.fail = False
    text, size = ("a", 2) if change == "config" else ("b", 1)
    make(run, builder, size=size, inputs={"data": make_input(run, text)})
    assert builder.found == [[], []]


def test_the_paths_of_a_run_differ(run: Run) -> None:
    paths = [run.data, run.encoder_cache, run.reward("a"), run.reward("b"), run.scores, run.orchestrator]
    paths += [run.policy_base, run.policy_round("wic", 0), run.policy_round("wic", 1), run.bundle, run.report]
    paths += [run.policy_round("plain", 0), run.study, run.logs, run.config_file]
    assert len(set(paths)) == len(paths) == 15
    assert all(path.is_relative_to(run.folder) for path in paths)


def test_rewards_go_by_the_name_that_they_have_as_inputs_in_the_order_of_the_objectives(run: Run) -> None:
    assert list(run.rewards.items()) == [("reward/a", run.reward("a")), ("reward/b", run.reward("b"))]


def test_prompts_and_pairs_are_read_whole_or_by_split_and_objective(run: Run) -> None:
    prompts = [
        Prompt(id=split, messages=(Message(role="user", content="x"),), split=split)
        for split in ("train", "validation", "test")
    ]
    pairs = [
        PreferencePair(
            id=f"{objective} {split}",
            prompt_id=split,
            objective=objective,
            chosen="y",
            rejected="n",
            split=split,
        )
        for objective in ("a", "b", "overall")
        for split in ("train", "test")
    ]
    run.data.mkdir()
    write_records(run.data / "prompts.jsonl", prompts)
    write_records(run.data / "pairs.jsonl", pairs)
    assert run.prompts() == prompts
    assert run.prompts("validation") == prompts[1:2]
    assert run.pairs() == pairs
    assert [pair.id for pair in run.pairs("overall")] == ["overall train", "overall test"]
    assert [pair.id for pair in run.pairs(split="test")] == ["a test", "b test", "overall test"]
    assert [pair.id for pair in run.pairs("a", "train")] == ["a train"]


parts = st.lists(st.one_of(st.integers(0, 9), st.text(max_size=3)), max_size=3)


@given(parts, parts, st.integers(0, 5), st.integers(0, 5))
def test_every_stage_and_run_has_a_seed_of_its_own(
    first: list[str | int], second: list[str | int], one: int, two: int
) -> None:
    seeds = [run_in(Path(), seed=one).seed_for(*first), run_in(Path(), seed=two).seed_for(*second)]
    assert (seeds[0] == seeds[1]) == ((first, one) == (second, two))
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_a_stage_reports_the_peak_memory_of_its_own_work(run: Run) -> None:
    def build(size: int) -> float:
        def fill(folder: Path, work: Path) -> Outcome:
            (folder / "size.txt").write_text(str(len(b"x" * (size * 2**20))), encoding="utf-8")
            return Outcome()

        return run.make(run.scores, kind="demo", config={"size": size}, inputs={}, build=fill).peak_memory_mib

    small, large, again = build(1), build(300), build(2)
    assert large > small + 250
    assert again < large - 250


def test_a_stage_reports_the_peak_memory_of_its_children_where_it_is_larger(run: Run) -> None:
    manifest = run.make(
        run.scores, kind="demo", config={}, inputs={}, build=lambda folder, work: Outcome(peak_memory_mib=1e6)
    )
    assert manifest.peak_memory_mib == 1e6
