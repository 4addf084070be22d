"""The data stage of the configs for real data, on the real files: counts, categories, no prompt on two sides.

The files are read from the folder that PREFORCH_DATA names; none of them is part of this project.
"""

import os
from pathlib import Path

import pytest
from preforch_models.manifest import read_manifest
from preforch_training.config import RunConfig, read_config
from preforch_training.pipeline import open_run
from preforch_training.records import PreferencePair, Prompt, by_id, read_records
from small_world import build

CONFIGS = Path(__file__).parents[3] / "training" / "configs"
COUNTS: dict[str, dict[str, dict[str, int] | int]] = {
    "hh-cpu": {
        "prompts": {"train": 3225, "validation": 452, "test": 952},
        "helpful": {"train": 1623, "validation": 251, "test": 473},
        "harmless": {"train": 1603, "validation": 201, "test": 480},
        "overall": {"train": 3226, "validation": 452, "test": 953},
        "rejected": 20,
    },
    "truthfulqa-cpu": {
        "prompts": {"train": 568, "validation": 106, "test": 143},
        "truthful": {"train": 9088, "validation": 1696, "test": 2288},
        "informative": {"train": 8954, "validation": 1665, "test": 2253},
        "overall": {"train": 9088, "validation": 1696, "test": 2287},
        "rejected": 0,
    },
    "oasst1-cpu": {
        "prompts": {"train": 339, "validation": 41, "test": 92},
        "quality": {"train": 497, "validation": 54, "test": 146},
        "creativity": {"train": 454, "validation": 51, "test": 139},
        "humor": {"train": 364, "validation": 39, "test": 99},
        "non-toxicity": {"train": 280, "validation": 35, "test": 81},
        "overall": {"train": 715, "validation": 80, "test": 213},
        "rejected": 12,
    },
}


@pytest.fixture(scope="module")
def root() -> Path:
    """The folder of the real data."""
    folder = os.environ.get("PREFORCH_DATA")
    if not folder:
        pytest.skip("PREFORCH_DATA is not set: it names the folder with hh_rlhf/, truthfulqa/ and oasst1/")
    return Path(folder)


Built = tuple[RunConfig, dict[str, Prompt], list[PreferencePair]]


@pytest.fixture(scope="module", params=COUNTS)
def built(request: pytest.FixtureRequest, root: Path, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """A config whose data stage has run, its prompts and its pairs."""
    settings = (f"data.root={root}", f"run.folder={tmp_path_factory.mktemp(request.param) / 'run'}")
    config = read_config(CONFIGS / f"{request.param}.toml", settings=settings)
    run = open_run(config)
    build("data", run, config)
    prompts = by_id(read_records(run.data / "prompts.jsonl", Prompt))
    return config, prompts, read_records(run.data / "pairs.jsonl", PreferencePair)


def name_of(config: RunConfig) -> str:
    return config.run.folder.parent.name.removesuffix("0")


def test_there_are_as_many_prompts_and_pairs_as_were_counted(built: Built) -> None:
    config, _, _ = built
    expected = COUNTS[name_of(config)]
    counts = {}
    for name, sizes in expected.items():
        if isinstance(sizes, int):
            counts[name] = sizes
        else:
            prefix = name if name == "prompts" else f"pairs/{name}"
            counts |= {f"{prefix}/{split}": size for split, size in sizes.items()}
    assert read_manifest(open_run(config).data).counts == counts


def test_no_prompt_is_on_two_sides(built: Built) -> None:
    _, prompts, pairs = built
    sides: dict[str, set[str]] = {}
    for prompt in prompts.values():
        first = next(message.content for message in prompt.messages if message.role == "user")
        sides.setdefault(" ".join(first.lower().split()), set()).add(prompt.split)
    assert all(len(splits) == 1 for splits in sides.values())
    assert all(pair.split == prompts[pair.prompt_id].split for pair in pairs)


def test_every_prompt_ends_with_the_user(built: Built) -> None:
    _, prompts, _ = built
    assert {prompt.messages[-1].role for prompt in prompts.values()} == {"user"}


def test_no_pair_is_there_twice(built: Built) -> None:
    _, _, pairs = built
    found = [(pair.prompt_id, pair.objective, pair.chosen, pair.rejected) for pair in pairs]
    assert len(set(found)) == len(found)
    assert len({pair.id for pair in pairs}) == len(pairs)


def test_the_categories_are_there(built: Built) -> None:
    config, prompts, _ = built
    categories = {prompt.category for prompt in prompts.values()}
    if name_of(config) == "truthfulqa-cpu":
        assert len(categories) == 38
        assert "" not in categories
    else:
        expected = {"hh-cpu": {"helpful-base", "harmless-base"}, "oasst1-cpu": {""}}
        assert categories == expected[name_of(config)]
