"""`[card]`: what only people know of the models of a run. It changes model cards and trains nothing again."""

from preforch_models.objectives import Record
from pydantic import Field, model_validator


class Config(Record):
    """Licences are ids of the Hugging Face hub such as "apache-2.0". Cards say "unknown" where nobody says
    it."""

    licence: str = Field(default="unknown", pattern=r"^[a-z0-9][a-z0-9.-]*$")
    """Of the models made here; what base models and data allow is for you to check. "other" needs a name."""
    licence_name: str = ""
    """Where `licence` is "other"."""
    licence_link: str = ""
    """Where the text of the licence is."""
    base_model_licence: str = "unknown"
    """Of the models that training starts from."""
    data_licence: str = "unknown"
    """Of the data."""
    languages: tuple[str, ...] = ()
    """Of prompts and responses, as ISO 639 codes: "en"."""

    @model_validator(mode="after")
    def _check(self) -> "Config":
        if (self.licence == "other") != bool(self.licence_name):
            raise ValueError(
                f"licence is {self.licence!r}, licence_name {self.licence_name!r}: 'other' needs a name, "
                "and nothing else has one"
            )
        return self
