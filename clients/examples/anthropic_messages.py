"""Anthropic's package against a gateway: weights in the body, in a header, and in the name of the model.

Needs `pip install anthropic`. PREFORCH_URL, PREFORCH_API_KEY and PREFORCH_MODEL choose another gateway and
policy.
"""

import os

from anthropic import Anthropic
from anthropic.types import MessageParam

QUESTION: MessageParam = {"role": "user", "content": "How do I calm a nervous dog?"}


def create(client: Anthropic, model: str) -> None:
    """Weights in the body, then in a header."""
    answer = client.messages.create(
        model=model,
        messages=[QUESTION],
        max_tokens=48,
        extra_body={"preference_weights": {"helpful": 0.7}},
    )
    print("".join(block.text for block in answer.content if block.type == "text"))
    print("asked for helpful 0.7:", (answer.model_extra or {})["preference"]["weights"])
    answer = client.messages.create(
        model=model,
        messages=[QUESTION],
        max_tokens=48,
        extra_headers={"X-Preference-Weights": "harmless=0.8"},
    )
    print("asked for harmless 0.8:", (answer.model_extra or {})["preference"]["weights"])


def stream(client: Anthropic, model: str) -> None:
    """Streamed: the message so far, from its first event on, holds the weights."""
    with client.messages.stream(model=f"{model}@humor=0.6", messages=[QUESTION], max_tokens=48) as events:
        for text in events.text_stream:
            print(text, end="", flush=True)
        preference = (events.get_final_message().model_extra or {})["preference"]
    print("\nasked for humor 0.6:", preference["weights"])


def main() -> None:
    """Two answers and a stream."""
    url = os.environ.get("PREFORCH_URL", "http://127.0.0.1:8000")
    model = os.environ.get("PREFORCH_MODEL", "wic")
    with Anthropic(base_url=url, api_key=os.environ.get("PREFORCH_API_KEY", "none")) as client:
        create(client, model)
        stream(client, model)


if __name__ == "__main__":
    main()
