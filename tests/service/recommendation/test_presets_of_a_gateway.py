"""The file of presets, and what is wrong with it in one line."""

import argparse
from pathlib import Path

import pytest
from preforch_service import cli
from preforch_service.recommendation.carriers import Carriers
from preforch_service.recommendation.presets import read_presets

SAFE = "[presets]\nsafe = {harmless = 0.7}\n[presets.even]\nhelpful = 1\nharmless = 1\n"


def write(folder: Path, text: str) -> Path:
    file = folder / "presets.toml"
    file.write_text(text, encoding="utf-8")
    return file


def test_presets_are_weights_by_name_full_or_partial(tmp_path: Path) -> None:
    presets = Carriers(("helpful", "harmless"), read_presets(write(tmp_path, SAFE))).presets
    assert {name: (given.weights, given.full) for name, given in presets.items()} == {
        "safe": ({"harmless": 0.7}, False),
        "even": ({"helpful": 0.5, "harmless": 0.5}, True),
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "presets: Field required"),
        ("[presets]\n", "presets: Dictionary should have at least 1 item"),
        ("presets", "is not TOML"),
        ("[presets]\n'a=b' = {harmless = 1}\n", "should match pattern"),
        ("[presets]\nsafe = {harmless = true}\n", "presets.safe.harmless"),
        ("[presets]\nsafe = {harmless = '1'}\n", "presets.safe.harmless"),
        ("[preset]\nsafe = {harmless = 1}\n", "preset: Extra inputs"),
    ],
)
def test_a_wrong_file_is_an_error_that_names_it(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        read_presets(write(tmp_path, text))
    assert "presets.toml" in str(caught.value)


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ({"kind": 0.5}, "preset 'safe': unknown objective 'kind'; known are"),
        ({"harmless": -0.5}, "preset 'safe': weight of 'harmless'"),
        ({"harmless": 1.5}, "preset 'safe': a partial set of weights may sum to at most 1"),
        ({}, "preset 'safe': weights are empty"),
    ],
)
def test_a_preset_must_fit_the_objectives(weights: dict[str, float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Carriers(("helpful", "harmless"), {"safe": weights})


def test_serve_reads_the_file_and_refuses_what_does_not_fit_the_bundle(
    bundle_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path, "[presets]\nsafe = {kind = 0.7}\n")
    given = [str(bundle_folder), "--weights-only", "--port", "0", "--presets", str(file)]
    parser = argparse.ArgumentParser()
    cli.add_arguments(parser)
    assert cli.run(parser.parse_args(given)) == 2
    assert "preset 'safe': unknown objective 'kind'" in capsys.readouterr().err
