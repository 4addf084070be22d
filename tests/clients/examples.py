"""Runs the files of clients/examples as a user does: as they are, told where the gateway is.

In:  an example by its path below that folder; address, API key and model of a gateway.
Out: the process that has ended, and what its output says of weights.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "clients" / "examples"
# What `make test-deploy` installs.
NODE_MODULES = ROOT / ".venv" / "npm" / "node_modules"
FRAMEWORKS = ROOT / ".venv" / "frameworks" / "bin" / "python"

_CARRIERS = ["helpful 0.7", "harmless 0.8", "humor 0.6"]
ASKED = {
    "openai_responses.py": _CARRIERS,
    "anthropic_messages.py": _CARRIERS,
    "frameworks/langchain_chat.py": _CARRIERS,
    "frameworks/litellm_chat.py": _CARRIERS,
    "frameworks/llama_index_chat.py": _CARRIERS,
    "node/openai.mjs": [*_CARRIERS, "helpful 0.6"],
    "node/vercel_ai_sdk.mjs": _CARRIERS,
    "node/anthropic.mjs": _CARRIERS,
    "JavaChat.java": _CARRIERS[:2],
}
"""Weights that an example asks for: by body, by header, by the name of the model."""
OTHERS = ("curl.sh", "openai_chat.py", "python_client.py")
"""They show weights in forms of their own."""

_INTERPRETERS = {".sh": "sh", ".py": sys.executable, ".mjs": "node", ".java": "java"}
_ASKED = re.compile(r"asked for ((\w+) ([\d.]+)): (.*)")
_ANNOUNCED = re.compile(r"(\w+)['\"]?[:=] ?([\d.]+)")


def names_of_examples() -> set[str]:
    """Paths of all programs below the folder."""
    return {
        path.relative_to(EXAMPLES).as_posix() for path in EXAMPLES.rglob("*") if path.suffix in _INTERPRETERS
    }


def run_example(
    name: str, url: str, *, key: str = "none", model: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run one, whether it succeeds or not."""
    environment = os.environ | {
        "PREFORCH_URL": url,
        "PREFORCH_API_KEY": key,
        "PREFORCH_MODEL": model,
        # LiteLLM asks the network for prices when it is imported.
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    }
    path = EXAMPLES / name
    with tempfile.TemporaryDirectory() as folder:
        if path.suffix == ".mjs":
            # Node looks for packages beside the file.
            (Path(folder) / "node_modules").symlink_to(NODE_MODULES)
            path = Path(shutil.copy(path, folder))
        framework = name.startswith("frameworks/")
        interpreter = str(FRAMEWORKS) if framework else _INTERPRETERS[path.suffix]
        return subprocess.run(
            [interpreter, str(path)],
            env=environment,
            capture_output=True,
            encoding="utf-8",
            timeout=120,
            check=False,
        )


def weights_asked_for(output: str) -> list[str]:
    """What the lines `asked for helpful 0.7: WEIGHTS` asked for; each must announce it."""
    asked = []
    for what, name, value, announced in _ASKED.findall(output):
        weights = {objective: float(weight) for objective, weight in _ANNOUNCED.findall(announced)}
        assert weights[name] == float(value), announced
        assert sum(weights.values()) == pytest.approx(1), announced
        asked.append(what)
    return asked
