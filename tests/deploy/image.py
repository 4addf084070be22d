"""Builds a target of the Dockerfile where there is no container engine.

In:  the Dockerfile, .dockerignore, the checkout.
Out: an `Image`: the folders that its instructions made, and what they say of starting it.

Instructions are carried out in order, on a copy of exactly what the build context would hold. RUN runs in a
bubblewrap sandbox (sandbox.py): this machine's files, read-only, stand in for the base image, and the folders
that the stage has made lie where the Dockerfile has them. An instruction that is not known here is an error,
so that none is passed over.
"""

import json
import re
import shutil
import subprocess
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from docker.utils.build import exclude_paths
from dockerfile_parse import DockerfileParser
from dockerfile_parse.util import WordSplitter, extract_key_values
from sandbox import machine_environment, package_index_environment, sandboxed, top_level

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "Dockerfile"
CONTEXT_ERROR = "is not in the build context (see .dockerignore)"


@dataclass(frozen=True)
class Image:
    """A stage: `files` holds its own top-level folders, everything else is how it is started."""

    files: Path
    base: str
    environment: dict[str, str]
    workdir: str = "/"
    user: str = "0:0"
    labels: dict[str, str] = field(default_factory=dict)
    arguments: dict[str, str] = field(default_factory=dict)
    entrypoint: tuple[str, ...] = ()
    healthcheck: tuple[str, ...] = ()
    stopsignal: str = ""

    def words(self, text: str) -> list[str]:
        """Words of an instruction, variables replaced."""
        return [str(word) for word in WordSplitter(text, args=self.arguments, envs=self.environment).split()]

    def at(self, path: str) -> Path:
        """Where a path of the image lies on this machine."""
        return self.files / (PurePosixPath(self.workdir) / path).relative_to("/")


def instructions(dockerfile: Path = DOCKERFILE) -> list[tuple[str, str]]:
    """Names and values, comments left out."""
    parser = DockerfileParser(path=str(dockerfile))
    return [
        (step["instruction"], step["value"]) for step in parser.structure if step["instruction"] != "COMMENT"
    ]


def stages(dockerfile: Path = DOCKERFILE) -> dict[str, list[tuple[str, str]]]:
    """The instructions of every stage by its name, its FROM first, defaults of global arguments filled in."""
    found: dict[str, list[tuple[str, str]]] = {}
    defaults: dict[str, str] = {}
    name = ""
    for instruction, value in instructions(dockerfile):
        if instruction == "ARG" and not name:
            defaults |= dict(extract_key_values(False, {}, {}, value))
            continue
        if instruction == "FROM":
            match = re.fullmatch(
                r"(\S+)\s+AS\s+(\S+)", str(WordSplitter(value, args=defaults, envs={}).dequote())
            )
            assert match, f"every stage has a name: FROM {value}"
            value, name = match.groups()
            found[name] = []
        found[name].append((instruction, value))
    return found


def copy_context(target: Path, root: Path = ROOT) -> Path:
    """A copy of exactly the files that `docker build` would send."""
    patterns = (root / ".dockerignore").read_text(encoding="utf-8").splitlines()
    patterns = [pattern for pattern in patterns if pattern and not pattern.startswith("#")]
    for name in sorted(exclude_paths(str(root), patterns)):
        if (root / name).is_file() and name not in ("Dockerfile", ".dockerignore"):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, target / name)
    return target


@dataclass
class Builder:
    """Builds stages below `work`; each is built once."""

    context: Path
    work: Path
    pip_cache: Path
    dockerfile: Path = DOCKERFILE
    built: dict[str, Image] = field(default_factory=dict)

    def build(self, name: str) -> Image:
        """The image of a stage. Raises RuntimeError where Docker would fail."""
        if name not in self.built:
            steps = stages(self.dockerfile)[name]
            image = self._begin(name, steps[0][1])
            for instruction, value in steps[1:]:
                image = self._step(image, instruction, value)
            self.built[name] = image
        return self.built[name]

    def _begin(self, name: str, base: str) -> Image:
        files = self.work / name
        if base in stages(self.dockerfile):
            parent = self.build(base)
            shutil.copytree(parent.files, files, symlinks=True)
            return replace(parent, files=files, arguments={})
        files.mkdir(parents=True)
        return Image(files=files, base=base, environment=machine_environment())

    def _step(self, image: Image, instruction: str, value: str) -> Image:
        match instruction:
            case "RUN":
                self._run(image, value)
            case "COPY":
                self._copy(image, image.words(value))
            case "WORKDIR":
                image = replace(image, workdir=value)
                image.at(".").mkdir(parents=True, exist_ok=True)
            case "ARG":
                arguments = dict(extract_key_values(False, {}, {}, value))
                image = replace(image, arguments=image.arguments | arguments)
            case "ENV":
                variables = dict(extract_key_values(True, image.arguments, image.environment, value))
                image = replace(image, environment=image.environment | variables)
            case "LABEL":
                labels = dict(extract_key_values(True, image.arguments, image.environment, value))
                image = replace(image, labels=image.labels | labels)
            case "USER":
                image = replace(image, user=value)
            case "STOPSIGNAL":
                image = replace(image, stopsignal=value)
            case "ENTRYPOINT":
                image = replace(image, entrypoint=tuple(json.loads(value)))
            case "HEALTHCHECK":
                image = replace(image, healthcheck=tuple(json.loads(value[value.index("CMD") + 3 :])))
            case "EXPOSE":
                pass
            case _:
                raise RuntimeError(
                    f"{self.dockerfile.name}: {instruction} is not known to tests/deploy/image.py"
                )
        return image

    def _copy(self, image: Image, words: list[str]) -> None:
        source = self.context
        if words[0].startswith("--from="):
            source = self.build(words.pop(0).removeprefix("--from=")).files
        *names, target = words
        for name in names:
            found = source / name.lstrip("/")
            if found.is_dir():
                shutil.copytree(found, image.at(target), symlinks=True, dirs_exist_ok=True)
            elif found.is_file():
                shutil.copy2(found, image.at(target))
            else:
                raise RuntimeError(f"COPY {name}: it {CONTEXT_ERROR}")

    def _run(self, image: Image, value: str) -> None:
        mounts: dict[str, Path] = {}
        while option := re.match(r"--mount=type=cache,target=(\S+)\s+", value):
            mounts[option[1]] = self.pip_cache
            value = value[option.end() :]
        # What changes the base image's own folders, as apt-get does, fails: they are read-only here.
        command = sandboxed(
            ["sh", "-ec", value],
            environment=image.environment | package_index_environment(),
            workdir=image.workdir,
            user="0:0",
            root=image.files,
            writable=mounts,
        )
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        for name in [*(entry.name for entry in top_level()), *(place.lstrip("/") for place in mounts)]:
            left = image.files / name
            if left.is_symlink():
                left.unlink()
            elif left.exists():
                left.rmdir()
        if done.returncode:
            raise RuntimeError(
                f"RUN {value}: exit code {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-4000:]}"
            )
