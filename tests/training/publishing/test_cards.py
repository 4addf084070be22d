"""Cards say what was made from what, under which licence, and nothing of the machine."""

import json
from pathlib import Path

import policy_world
import pytest
import small_world
from huggingface_hub import ModelCard
from preforch_models.manifest import MANIFEST, MODEL_CARD, digest, read_manifest, verify
from preforch_models.policy_card import read_policy_card
from preforch_training.config import RunConfig
from preforch_training.pipeline import train
from preforch_training.publishing.card import render_card, write_cards
from preforch_training.publishing.config import Config as CardConfig
from preforch_training.run import Run
from pydantic import ValidationError

CARD = {"licence": "apache-2.0", "data_licence": "cc-by-4.0", "languages": ["en"]}
VERDICT = {"name": "utility gained", "target": ">= 0.3", "reached": True}


@pytest.fixture(scope="module")
def trained(encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, RunConfig]:
    """A run up to its bundle, with cards."""
    folder = tmp_path_factory.mktemp("cards")
    base = small_world.write_encoder(folder / "secret-machine-path")
    run, config = small_world.make_run(
        folder,
        card=CARD,
        reward={"funny": {"kind": "pair_head", "encoder": str(base), "hidden": 0}, "folds": 2},
        orchestrator={"encoder": str(encoder), "epochs": 1},
    )
    for stage in ("data", "reward", "scores", "orchestrator", "bundle"):
        train(config, stage=stage)
    return run, config


def body(run: Run, label: str) -> str:
    return (run.folder / label / MODEL_CARD).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("label", "says"),
    [
        ("reward/funny", "A reward model"),
        ("reward/safe", "A reward model"),
        ("orchestrator", "An orchestrator f(x)"),
        ("bundle", "An orchestrator as the gateway loads it"),
    ],
)
def test_an_artifact_has_a_card_that_a_hub_reads(
    trained: tuple[Run, RunConfig], label: str, says: str
) -> None:
    run, _ = trained
    card = ModelCard.load(run.folder / label / MODEL_CARD)
    assert card.data.license == "apache-2.0"
    assert card.data.language == ["en"]
    assert "preference-orchestrator" in card.data.tags
    assert f"# run: {label}" in card.text
    assert says in card.text
    for part in ("Objectives", "Data", "Recipe", "Training", "Results", "Use", "Intended use and limits"):
        assert f"\n## {part}\n" in card.text
    assert "| the data | cc-by-4.0 |" in card.text
    assert "| the model it started from | unknown |" in card.text
    assert "`unknown` means that whoever trained this has not said it" in card.text
    assert "| `prompts/train` |" in card.text
    assert digest(read_manifest(run.folder / label).files)[:16] in card.text


def test_a_card_says_how_and_how_well_it_was_trained(trained: tuple[Run, RunConfig]) -> None:
    run, _ = trained
    found = read_manifest(run.orchestrator).metrics["validation_loss"]
    for label in ("orchestrator", "bundle"):
        assert f"| `{'orchestrator.' * (label == 'bundle')}tau` | `1.0` |" in body(run, label)
        assert "Preset `recommended`, otherwise reward.folds = " in body(run, label)
    assert f"| `validation_loss` | {found:.4g} |" in body(run, "orchestrator")
    assert "speed_ratio" not in body(run, "bundle")


def test_no_path_of_the_machine_is_in_a_card(trained: tuple[Run, RunConfig], tmp_path: Path) -> None:
    run, _ = trained
    texts = [path.read_text(encoding="utf-8") for path in run.folder.rglob(MODEL_CARD)]
    assert len(texts) == 4
    assert "| `reward.encoder` | `(a local path)` |" in body(run, "reward/funny")
    assert "Started from: a local folder (digest of its files " in body(run, "reward/funny")
    for text in texts:
        assert "secret-machine-path" not in text
        assert str(tmp_path.parent) not in text


def test_a_dataset_is_named_by_its_id_on_a_hub_and_never_by_its_folder(
    trained: tuple[Run, RunConfig],
) -> None:
    run, config = trained
    sources = ({"dataset": "org/prefs"}, {"dataset": str(run.folder / "secret")}, {"path": "pairs.jsonl"})
    data = config.data.model_validate(config.data.model_dump() | {"sources": sources})
    text = render_card(run.folder, config.model_copy(update={"data": data}), "bundle")
    assert "From `org/prefs`, 2 local sources." in text
    assert "datasets: org/prefs" in text or "datasets:\n- org/prefs\n" in text
    assert "secret" not in text


def test_a_card_is_no_part_of_its_artifact_and_follows_the_config(trained: tuple[Run, RunConfig]) -> None:
    run, config = trained
    before = verify(run.bundle)
    assert MODEL_CARD not in before.files
    time = (run.bundle / MODEL_CARD).stat().st_mtime_ns
    write_cards(run.folder, config)
    assert (run.bundle / MODEL_CARD).stat().st_mtime_ns == time
    other = CardConfig(licence="other", licence_name="our terms", licence_link="https://example.org/terms")
    write_cards(run.folder, config.model_copy(update={"card": other}))
    card = ModelCard.load(run.bundle / MODEL_CARD)
    assert (card.data.license, card.data.license_name) == ("other", "our terms")
    assert "| this model | our terms (https://example.org/terms) |" in card.text
    assert verify(run.bundle) == before
    write_cards(run.folder, config)


def test_a_card_gives_the_numbers_of_a_report_on_this_very_artifact(trained: tuple[Run, RunConfig]) -> None:
    run, config = trained
    assert "Not measured" in body(run, "bundle")
    interval = {"low": 0.4, "high": 0.6}
    verdicts = [VERDICT | {"value": 0.5, "interval": interval}, VERDICT | {"value": None, "interval": None}]
    run.report.mkdir()
    (run.report / "report.json").write_text(
        json.dumps({"verdicts": verdicts, "warnings": ["few pairs"]}), encoding="utf-8"
    )
    manifest = read_manifest(run.bundle)
    reported = manifest.model_copy(update={"inputs": {"bundle": digest(manifest.files), "orchestrator": "0"}})
    (run.report / MANIFEST).write_text(reported.model_dump_json(), encoding="utf-8")
    text = render_card(run.folder, config, "bundle")
    assert "| utility gained | 0.5 [0.4, 0.6] | >= 0.3 | yes |" in text
    assert "| utility gained | none | >= 0.3 | yes |" in text
    assert "* few pairs" in text
    assert "Not measured" in render_card(run.folder, config, "orchestrator")


def test_a_policy_has_a_card_and_the_revision_that_it_has_without_one(tmp_path: Path) -> None:
    config = policy_world.make_config(
        tmp_path,
        policies={"wic": policy_world.wic(online_rounds=0, online=None), "plain": policy_world.sft()},
    )
    run, _ = policy_world.write_inputs(tmp_path, config)
    small_world.build("policy", run, config, policy_world.ScriptedSampler())
    before = {name: read_policy_card(run.policy_round(name, 0)) for name in ("wic", "plain")}
    write_cards(run.folder, config)
    for name, card in before.items():
        assert read_policy_card(run.policy_round(name, 0)) == card
        verify(run.policy_round(name, 0), kind="policy")
        text = body(run, f"policy/{name}/round-0")
        assert ("reads no weights" in text) == (name == "plain")
        assert "pipeline_tag: text-generation" in text
        assert "license: unknown" in text
        assert "the demo world" in text
    assert not (run.policy_base / MODEL_CARD).exists()


def test_another_licence_needs_a_name() -> None:
    with pytest.raises(ValidationError, match="'other' needs a name"):
        CardConfig(licence="other")
    with pytest.raises(ValidationError, match="nothing else has one"):
        CardConfig(licence="mit", licence_name="MIT")
