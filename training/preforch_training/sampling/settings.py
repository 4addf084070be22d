"""How responses are drawn. No model library is loaded here: configurations are made of it."""

from preforch_models.objectives import Record


class Sampling(Record):
    """How responses are drawn from a policy: in online rounds, in the report and in the demo."""

    temperature: float
    top_p: float
    max_tokens: int
