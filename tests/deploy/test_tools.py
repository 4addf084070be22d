"""The programs that `make test-deploy` installs are there.

Without one its tests fail, they are never skipped.
"""

import shutil

import pytest


@pytest.mark.deploy
@pytest.mark.parametrize(
    "program",
    ["promtool", "prometheus", "hadolint", "bwrap", "nsenter", "helm", "node", "tsc", "checkov", "chromium"],
)
def test_a_program_is_installed(program: str) -> None:
    assert shutil.which(program), f"{program} is missing: run `make test-deploy`, which installs it"
