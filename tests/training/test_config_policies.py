"""`[policy]` and `[policies.NAME]`: several policies of a run, each with settings of its kind."""

from pathlib import Path
from typing import Any

import pytest
from preforch_training.config import ConfigError, RunConfig, read_config, write_resolved
from preforch_training.policy.config import NEW_FORM
from preforch_training.policy.settings.sft import SftPolicy
from preforch_training.policy.settings.wic import WicPolicy
from preforch_training.presets import POLICY_PRESETS, PRESETS

BASE = """
preset = "recommended"
scores = {}
objectives = [{name = "funny"}, {name = "safe"}]
[run]
folder = "runs/x"
seed = 3
[data]
source = "demo"
[reward.funny]
kind = "function"
function = "a.b:c"
[reward.safe]
kind = "function"
function = "a.b:c"
[orchestrator]
"""
SHARED = """
[policy]
base = "demo"
"""
STEPS = "{steps = 3, learning_rate = 1e-3, batch_size = 2}"
WIC = f"""
[policies.wic]
kind = "wic"
offline = {STEPS}
online = {STEPS}
"""
SFT = f"""
[policies.plain]
kind = "sft"
training = {STEPS}
"""
BOTH = SHARED + WIC + SFT


def read(folder: Path, *settings: str, text: str = "", preset: str = "recommended") -> RunConfig:
    path = folder / "config.toml"
    path.write_text(BASE.replace("recommended", preset) + text, encoding="utf-8")
    return read_config(path, settings=settings)


def test_a_run_may_have_no_policy(tmp_path: Path) -> None:
    config = read(tmp_path)
    assert (config.policy, config.policies, config.served) == (None, {}, None)


def test_the_only_policy_is_served(tmp_path: Path) -> None:
    assert read(tmp_path, text=SHARED + WIC).served == "wic"
    assert read(tmp_path, text=SHARED + SFT).served == "plain"


def test_two_policies_have_settings_of_their_kinds(tmp_path: Path) -> None:
    config = read(tmp_path, "serve=plain", text=BOTH)
    wic, plain = config.policies["wic"], config.policies["plain"]
    assert isinstance(wic, WicPolicy)
    assert isinstance(plain, SftPolicy)
    assert (wic.rounds, plain.rounds) == (3, 1)
    assert config.served == "plain"


def test_of_several_policies_the_file_says_which_is_served(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r'serve = "NAME" must say which.*one of \[\'plain\', \'wic\'\]'):
        read(tmp_path, text=BOTH)
    with pytest.raises(ConfigError, match=r"serve is 'other', the policies are \['plain', 'wic'\]"):
        read(tmp_path, "serve=other", text=BOTH)
    with pytest.raises(ConfigError, match=r"serve is 'wic', the policies are \[\]"):
        read(tmp_path, "serve=wic")


@pytest.mark.parametrize("name", ["base", "Wic", "2nd", "a.b", "a/b", "..", "-a", "", "ä", "wic\n"])
def test_a_name_that_cannot_be_a_folder_is_refused(tmp_path: Path, name: str) -> None:
    text = SHARED + WIC.replace("policies.wic", f"policies.{name!r}".replace("'", '"'))
    with pytest.raises(ConfigError, match=r"name is a folder; allowed are lower-case letters"):
        read(tmp_path, text=text)


@pytest.mark.parametrize("name", ["wic", "w", "wic-2", "round_0"])
def test_other_names_are_allowed(tmp_path: Path, name: str) -> None:
    assert read(tmp_path, text=SHARED + WIC.replace("wic]", f"{name}]")).served == name


@pytest.mark.parametrize(
    "text",
    [SHARED, SHARED + f"offline = {STEPS}", '[policy]\nname = "wic"', SHARED + "[policies]"],
    ids=["shared alone", "format 1", "name", "no policies"],
)
def test_an_old_policy_table_is_shown_the_new_form(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError) as error:
        read(tmp_path, text=text)
    assert NEW_FORM in str(error.value)
    assert str(error.value).startswith(f"{tmp_path / 'config.toml'}: ")


def test_policies_without_what_they_share_are_shown_the_form(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        read(tmp_path, text=WIC)
    assert NEW_FORM in str(error.value)


def test_a_policy_that_is_off_is_shown_the_new_form(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"\[policy\] has the form of an earlier version") as error:
        read(tmp_path, "policy=off")
    assert NEW_FORM in str(error.value)


def test_the_new_form_is_one_that_can_be_read(tmp_path: Path) -> None:
    example = "\n".join(line for line in NEW_FORM.splitlines() if "=" in line or line.startswith("["))
    example = example.replace("steps = 900", "steps = 900, learning_rate = 1e-3, batch_size = 2")
    example = example.replace("steps = 125", "steps = 125, learning_rate = 1e-3, batch_size = 2")
    serve, _, rest = example.partition("\n")
    path = tmp_path / "config.toml"
    path.write_text(serve + BASE + rest, encoding="utf-8")
    config = read_config(path)
    assert config.served == "wic"
    assert isinstance(config.policies["wic"], WicPolicy)


def test_folds_of_the_scores_are_told_their_new_place(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"scores\.folds belongs to the rewards now: write \[reward\] folds = 3"
    ):
        read(tmp_path, "scores.folds=3")
    assert read(tmp_path, "reward.folds=3").reward.folds == 3


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("policies.wic.offline.stepz=1", r"policies\.wic\.wic\.offline\.stepz: Extra inputs"),
        ("policies.plain.tau=1", r"policies\.plain\.sft\.tau: Extra inputs"),
        ("policies.plain.kind=dpo", r"policies\.plain: .*'wic', 'sft'"),
        ("policies.wic.quality_quantile=1", r"policies\.wic\.wic\.quality_quantile: .*less than 1"),
        ("policies.wic.online_rounds=-1", r"online_rounds: .*greater than or equal to 0"),
        ("policies.wic.online.keep=all", r"online\.keep: .*'best_by_weights'"),
        ("policies.wic=3", r"policies\.wic"),
        ("policies=3", "policies"),
        ("policy.temperature=0", r"policy\.temperature: .*greater than 0"),
        ("policy.max_response_tokens=4096", r"leaves no room for a prompt in max_model_len 4096"),
        ("policy.scratch.colour=1", r"policy\.scratch\.colour: Extra inputs"),
    ],
)
def test_a_wrong_setting_of_a_policy_is_named(tmp_path: Path, setting: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read(tmp_path, "serve=wic", setting, text=BOTH)


@pytest.mark.parametrize(
    ("report", "message"),
    [
        ('reference = "wic"', r"report.reference is 'wic'; .*read no weights: \['plain'\]"),
        ('best_of = {policy = "other"}', r"report.best_of.policy is 'other'; .*\['plain'\]"),
        ('pairs = [["wic", "other"]]', r"report.pairs names 'other', the policies are \['plain', 'wic'\]"),
    ],
)
def test_what_the_report_compares_must_be_there(tmp_path: Path, report: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read(tmp_path, 'serve="wic"', text=f"{BOTH}\n[report]\n{report}\n")


def test_real_data_have_no_utilities_to_compare(tmp_path: Path) -> None:
    text = f'{BOTH}\n[report]\npairs = [["wic", "plain"]]\n'
    assert read(tmp_path, 'serve="wic"', text=text).report.pairs == (("wic", "plain"),)
    files = ('data.source="files"', 'data.root="x"', 'data.sources=[{path = "pairs.jsonl"}]')
    with pytest.raises(ConfigError, match=r"report\.pairs .*, which data\.source = 'files' does not know"):
        read(tmp_path, 'serve="wic"', *files, text=text)


def test_online_rounds_need_their_table(tmp_path: Path) -> None:
    offline = "\n".join(line for line in WIC.splitlines() if not line.startswith("online"))
    with pytest.raises(ConfigError, match="online_rounds is 2, but there is no table `online`"):
        read(tmp_path, text=SHARED + offline)
    policy = read(tmp_path, "policies.wic.online_rounds=0", text=SHARED + offline).policies["wic"]
    assert policy.rounds == 1


# Presets.


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_fills_what_a_policy_of_its_kind_leaves_open(tmp_path: Path, preset: str) -> None:
    config = read(tmp_path, "serve=wic", text=BOTH, preset=preset)
    choices = POLICY_PRESETS[preset]["wic"]
    written = config.policies["wic"].model_dump(mode="json")
    assert within(choices, written) == choices
    assert config.policies["plain"].model_dump(mode="json").keys() == {"kind", "training"}


def within(choices: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """The entries of `values` that `choices` names, tables within tables."""
    return {
        key: within(value, values[key]) if isinstance(value, dict) else values[key]
        for key, value in choices.items()
    }


def test_what_the_file_says_of_a_policy_wins_over_the_preset(tmp_path: Path) -> None:
    settings = ("policies.wic.tau=0.3", "policies.wic.online.samples_per_prompt=2")
    policy = read(tmp_path, *settings, text=SHARED + WIC).policies["wic"]
    assert isinstance(policy, WicPolicy)
    assert policy.online is not None
    assert (policy.tau, policy.online.samples_per_prompt) == (0.3, 2)
    assert policy.online.keep == POLICY_PRESETS["recommended"]["wic"]["online"]["keep"]


def test_a_preset_makes_no_table_that_the_file_does_not_have(tmp_path: Path) -> None:
    offline = "\n".join(line for line in WIC.splitlines() if not line.startswith("online"))
    policy = read(tmp_path, "policies.wic.online_rounds=0", text=SHARED + offline).policies["wic"]
    assert isinstance(policy, WicPolicy)
    assert policy.online is None


def test_two_policies_of_one_kind_are_filled_each_for_itself(tmp_path: Path) -> None:
    text = SHARED + WIC + WIC.replace("policies.wic", "policies.cold") + "tau = 0.2\n"
    config = read(tmp_path, "serve=wic", text=text)
    taus = {name: policy.tau for name, policy in config.policies.items() if isinstance(policy, WicPolicy)}
    assert taus == {"wic": POLICY_PRESETS["recommended"]["wic"]["tau"], "cold": 0.2}


@pytest.mark.parametrize("text", ["", SHARED + WIC, SHARED + SFT, BOTH], ids=["none", "wic", "sft", "both"])
@pytest.mark.parametrize("preset", PRESETS)
def test_the_resolved_file_reads_back_equal(tmp_path: Path, text: str, preset: str) -> None:
    config = read(tmp_path, *(["serve=wic"] if text == BOTH else []), text=text, preset=preset)
    write_resolved(config, tmp_path / "resolved.toml")
    assert read_config(tmp_path / "resolved.toml") == config
