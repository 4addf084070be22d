"""docker-compose.yaml as Compose reads it: merged, with the defaults of its variables.

In:  the file. Out: typed services, of the keys that tests look at; the schema's own check is apart
     (test_compose.py).
"""

import re
from pathlib import Path
from typing import Any

import yaml
from image import ROOT
from pydantic import BaseModel

COMPOSE = ROOT / "docker-compose.yaml"


class Mount(BaseModel):
    """A volume of a service, in the long form."""

    type: str
    source: str
    target: str
    read_only: bool = False


class Grant(BaseModel):
    """A configuration, mounted."""

    source: str
    target: str


class Health(BaseModel):
    """A health check."""

    test: list[str] = []
    disable: bool = False


class Service(BaseModel):
    """What a service is started with."""

    image: str
    build: dict[str, Any] | None = None
    entrypoint: list[str] | None = None
    command: list[str] = []
    user: str = ""
    environment: dict[str, str] = {}
    profiles: list[str] = []
    volumes: list[Mount] = []
    tmpfs: list[str] = []
    configs: list[Grant] = []
    secrets: list[str] = []
    ports: list[str] = []
    networks: list[str] | dict[str, Any] = []
    healthcheck: Health | None = None
    read_only: bool = False
    cap_drop: list[str] = []
    security_opt: list[str] = []
    stop_grace_period: str = "10s"


class Composition(BaseModel):
    """The whole file."""

    services: dict[str, Service]
    configs: dict[str, dict[str, str]]
    secrets: dict[str, dict[str, str]]
    networks: dict[str, dict[str, bool]]
    volumes: dict[str, dict[str, str]]


def read_composition(file: Path = COMPOSE) -> Composition:
    """The file with the defaults of its variables, which are all `${NAME:-default}`."""
    text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", file.read_text(encoding="utf-8"))
    assert "$" not in text, "a variable without a default"
    return Composition.model_validate(yaml.safe_load(text))
