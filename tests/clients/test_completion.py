"""`preforch completion`: the script in a real bash; for the other shells, that it names everything."""

import subprocess
from pathlib import Path

import pytest
from preforch_cli.completion import SHELLS
from preforch_cli.main import COMMANDS, main
from preforch_process import preforch

COMPLETE = """
source "$1"
shift
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
complete -p preforch > /dev/null || exit 3
$(complete -p preforch | sed 's/.*-F \\([^ ]*\\) .*/\\1/')
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("completion") / "preforch.bash"
    done = preforch("completion", "bash")
    assert (done.returncode, done.stderr) == (0, "")
    file.write_text(done.stdout, encoding="utf-8")
    return file


def completed(script: Path, *words: str) -> set[str]:
    """What bash offers for the last of these words."""
    command = ["bash", "-c", COMPLETE, "bash", str(script), "preforch", *words]
    done = subprocess.run(command, cwd=script.parent, capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr == ""
    return set(done.stdout.split())


def test_bash_completes_commands_options_choices_and_files(script: Path) -> None:
    assert completed(script, "") >= set(COMMANDS)
    assert completed(script, "we") == {"weights"}
    assert completed(script, "weights", "--pa") == {"--patience"}
    assert completed(script, "weights", "--bad-lines", "") == {"stop", "write"}
    assert completed(script, "weights", "--file", "pre") == {"preforch.bash"}
    assert completed(script, "serve", "--device", "c") == {"cpu", "cuda"}
    assert completed(script, "train", "rew") == {"reward"}


@pytest.mark.parametrize("shell", SHELLS)
def test_every_shell_gets_every_command(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in (*COMMANDS, "bad-lines", "engine-arg"))


def test_commands_whose_extra_is_missing_are_completed_by_name() -> None:
    done = preforch("completion", "bash", blocked=("numpy", "pydantic"))
    assert done.returncode == 0
    assert "_shtab_preforch_weights_option_strings=(-h --help --json --file" in done.stdout
    assert "_shtab_preforch_serve_option_strings=(-h --help)" in done.stdout


def test_another_shell_is_refused_with_those_that_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "csh"]) == 2
    assert "invalid choice: 'csh' (choose from 'bash', 'zsh', 'fish')" in capsys.readouterr().err
