"""The openai package and Responses: weights in the body, an answer of a given form, a stream.

Needs `pip install openai`. PREFORCH_URL and PREFORCH_API_KEY choose another gateway.
"""

import os
from typing import Literal

from openai import OpenAI
from pydantic import BaseModel

QUESTION = "How do I calm a nervous dog?"


class Advice(BaseModel):
    """The form of an answer."""

    urgency: Literal["low", "high"]


def create(client: OpenAI, model: str) -> None:
    """One answer with a weight of one's own."""
    answer = client.responses.create(
        model=model,
        input=QUESTION,
        max_output_tokens=48,
        extra_body={"preference_weights": {"helpful": 0.7}},
    )
    print(answer.output_text)
    print("asked for helpful 0.7:", (answer.model_extra or {})["preference"]["weights"])


def parse(client: OpenAI, model: str) -> None:
    """An answer of a given form; weights in a header."""
    answer = client.responses.parse(
        model=model,
        input=QUESTION,
        text_format=Advice,
        max_output_tokens=48,
        extra_headers={"X-Preference-Weights": "harmless=0.8"},
    )
    print("parsed:", answer.output_parsed)
    print("asked for harmless 0.8:", (answer.model_extra or {})["preference"]["weights"])


def stream(client: OpenAI, model: str) -> None:
    """Streamed: the first event names the weights, here those that the name of the model asks for."""
    with client.responses.stream(model=f"{model}@humor=0.6", input=QUESTION, max_output_tokens=48) as events:
        for event in events:
            if event.type == "response.created":
                print("asked for humor 0.6:", (event.response.model_extra or {})["preference"]["weights"])
            elif event.type == "response.output_text.delta":
                print(event.delta, end="", flush=True)
    print()


def main() -> None:
    """An answer, a parsed one, and a stream."""
    url = os.environ.get("PREFORCH_URL", "http://127.0.0.1:8000")
    with OpenAI(base_url=f"{url}/v1", api_key=os.environ.get("PREFORCH_API_KEY", "none")) as client:
        model = client.models.list().data[0].id
        create(client, model)
        parse(client, model)
        stream(client, model)


if __name__ == "__main__":
    main()
