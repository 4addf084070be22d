"""LangChain against a gateway: weights in the body, in a header, and in the name of the model.

LangChain drops the fields of an answer that OpenAI's format does not have, `preference` too. It keeps headers
where it is asked to, and these name the weights.

Needs `pip install langchain-openai`. PREFORCH_URL, PREFORCH_API_KEY and PREFORCH_MODEL choose another gateway
and policy.
"""

import os

from langchain_openai import ChatOpenAI

QUESTION = "How do I calm a nervous dog?"


def main() -> None:
    """Two answers and a stream."""
    url = os.environ.get("PREFORCH_URL", "http://127.0.0.1:8000")
    key = os.environ.get("PREFORCH_API_KEY", "none")
    model = os.environ.get("PREFORCH_MODEL", "wic")

    chat = ChatOpenAI(
        base_url=f"{url}/v1",
        api_key=key,
        model=model,
        max_tokens=48,
        extra_body={"preference_weights": {"helpful": 0.7}},
        include_response_headers=True,
    )
    answer = chat.invoke(QUESTION)
    print(answer.content)
    print("asked for helpful 0.7:", answer.response_metadata["headers"]["x-preference-weights"])

    # A call's own weights; None: what the model has from above is not sent.
    asked = {"X-Preference-Weights": "harmless=0.8"}
    answer = chat.invoke(QUESTION, extra_body=None, extra_headers=asked)
    print("asked for harmless 0.8:", answer.response_metadata["headers"]["x-preference-weights"])

    for chunk in chat.stream(QUESTION, extra_body=None, model=f"{model}@humor=0.6"):
        if headers := chunk.response_metadata.get("headers"):
            print("asked for humor 0.6:", headers["x-preference-weights"])
        print(chunk.content, end="", flush=True)
    print()


if __name__ == "__main__":
    main()
