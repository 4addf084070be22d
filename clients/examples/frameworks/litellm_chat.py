"""LiteLLM against a gateway: weights in the body, in a header, and in the name of the model.

Needs `pip install litellm`. PREFORCH_URL, PREFORCH_API_KEY and PREFORCH_MODEL choose another gateway and
policy.
"""

import os

import litellm

QUESTION = {"role": "user", "content": "How do I calm a nervous dog?"}


def main() -> None:
    """Two answers and a stream."""
    url = os.environ.get("PREFORCH_URL", "http://127.0.0.1:8000")
    key = os.environ.get("PREFORCH_API_KEY", "none")
    model = os.environ.get("PREFORCH_MODEL", "wic")

    gateway = {"api_base": f"{url}/v1", "api_key": key, "messages": [QUESTION], "max_tokens": 48}
    answer = litellm.completion(
        model=f"openai/{model}", extra_body={"preference_weights": {"helpful": 0.7}}, **gateway
    )
    print(answer.choices[0].message.content)
    print("asked for helpful 0.7:", answer.preference["weights"])

    asked = {"X-Preference-Weights": "harmless=0.8"}
    answer = litellm.completion(model=f"openai/{model}", extra_headers=asked, **gateway)
    print("asked for harmless 0.8:", answer.preference["weights"])

    for chunk in litellm.completion(model=f"openai/{model}@humor=0.6", stream=True, **gateway):
        if preference := getattr(chunk, "preference", None):
            print("asked for humor 0.6:", preference["weights"])
        print(chunk.choices[0].delta.content or "", end="", flush=True)
    print()


if __name__ == "__main__":
    main()
