"""LlamaIndex against a gateway: weights in the body, in a header, and in the name of the model.

Needs `pip install llama-index-llms-openai-like`. PREFORCH_URL, PREFORCH_API_KEY and PREFORCH_MODEL choose
another gateway and policy.
"""

import os

from llama_index.llms.openai_like import OpenAILike

QUESTION = "How do I calm a nervous dog?"


def main() -> None:
    """Two answers and a stream."""
    url = os.environ.get("PREFORCH_URL", "http://127.0.0.1:8000")
    key = os.environ.get("PREFORCH_API_KEY", "none")
    model = os.environ.get("PREFORCH_MODEL", "wic")

    gateway = {"api_base": f"{url}/v1", "api_key": key, "is_chat_model": True, "max_tokens": 48}
    llm = OpenAILike(
        model=model, additional_kwargs={"extra_body": {"preference_weights": {"helpful": 0.7}}}, **gateway
    )
    answer = llm.complete(QUESTION)
    print(answer.text)
    print("asked for helpful 0.7:", answer.raw.preference["weights"])

    llm = OpenAILike(model=model, default_headers={"X-Preference-Weights": "harmless=0.8"}, **gateway)
    print("asked for harmless 0.8:", llm.complete(QUESTION).raw.preference["weights"])

    llm = OpenAILike(model=f"{model}@humor=0.6", **gateway)
    for chunk in llm.stream_complete(QUESTION):
        if preference := getattr(chunk.raw, "preference", None):
            print("asked for humor 0.6:", preference["weights"])
        print(chunk.delta or "", end="", flush=True)
    print()


if __name__ == "__main__":
    main()
