"""The generated worlds, by what `data.source` calls them."""

from collections.abc import Mapping
from types import MappingProxyType

from preforch_training.demo.assistant.world import ASSISTANT
from preforch_training.demo.tutor.world import TUTOR
from preforch_training.demo.world import World

WORLDS: Mapping[str, World] = MappingProxyType({"demo": ASSISTANT, "tutor": TUTOR})
