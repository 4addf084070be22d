"""The table of generated worlds is what a config may name."""

from typing import get_args

from preforch_training.data.config import Config
from preforch_training.demo.worlds import WORLDS


def test_a_config_may_name_every_world_of_the_table_and_files() -> None:
    assert set(get_args(Config.model_fields["source"].annotation)) == {*WORLDS, "files"}
    assert {name: Config.model_validate({"source": name}).world for name in WORLDS} == {n: n for n in WORLDS}
    assert Config.model_validate({"source": "files"}).world is None
