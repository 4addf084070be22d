"""The openai package against a gateway: another base URL, and one more field, `preference_weights`.

Needs `pip install openai`. PREFORCH_URL and PREFORCH_API_KEY choose another gateway.
"""

import os

from openai import OpenAI
from openai.types.chat import ChatCompletionUserMessageParam

QUESTION = ChatCompletionUserMessageParam(role="user", content="How do I calm a nervous dog?")


def complete(client: OpenAI, model: str) -> None:
    """One answer with the recommended weights, which the answer names."""
    answer = client.chat.completions.create(model=model, messages=[QUESTION], max_tokens=48)
    print("recommended:", (answer.model_extra or {})["preference"]["weights"])
    print(answer.choices[0].message.content)


def complete_weighted(client: OpenAI, model: str) -> None:
    """The same question with one weight pinned; the orchestrator shares out the rest."""
    answer = client.chat.completions.create(
        model=model, messages=[QUESTION], max_tokens=48, extra_body={"preference_weights": {"helpful": 0.7}}
    )
    preference = (answer.model_extra or {})["preference"]
    print(f"{preference['source']}:", preference["weights"])
    print(answer.choices[0].message.content)


def stream(client: OpenAI, model: str) -> None:
    """Streamed: the first chunk names the weights."""
    for chunk in client.chat.completions.create(model=model, messages=[QUESTION], max_tokens=48, stream=True):
        if preference := (chunk.model_extra or {}).get("preference"):
            print("streamed with:", preference["weights"])
        for choice in chunk.choices:
            print(choice.delta.content or "", end="", flush=True)
    print()


def main() -> None:
    """Recommended weights, weights of one's own, and a stream."""
    url = os.environ.get("PREFORCH_URL", "http://127.0.0.1:8000")
    with OpenAI(base_url=f"{url}/v1", api_key=os.environ.get("PREFORCH_API_KEY", "none")) as client:
        model = client.models.list().data[0].id
        complete(client, model)
        complete_weighted(client, model)
        stream(client, model)


if __name__ == "__main__":
    main()
