"""The project's own client, sync and async.

Needs `pip install 'preference-orchestrator[client]'`. PREFORCH_URL and PREFORCH_API_KEY choose another
gateway.
"""

import asyncio
import os

from preforch_client import AsyncClient, BadRequest, Client

PROMPT = "How do I calm a nervous dog?"
MESSAGES = [{"role": "user", "content": PROMPT}]


def with_sync_client(url: str, api_key: str | None) -> None:
    """Weights, an answer, a stream, and what a mistake looks like."""
    with Client(url, api_key=api_key) as client:
        print("objectives:", [objective.name for objective in client.objectives().objectives])
        print("recommended:", client.weights(PROMPT).weights)
        generation = client.generate(PROMPT, weights={"helpful": 0.7}, max_tokens=48)
        print(f"{generation.source}:", generation.weights)
        print(generation.text)
        with client.chat(MESSAGES, max_tokens=48, stream=True) as chunks:
            for chunk in chunks:
                print(chunk.text, end="", flush=True)
        print()
        try:
            client.chat(MESSAGES, weights={"no-such-objective": 1.0})
        except BadRequest as error:
            print("refused:", error)


async def with_async_client(url: str, api_key: str | None) -> None:
    """Two conversations at the same time."""
    async with AsyncClient(url, api_key=api_key) as client:
        answers = await asyncio.gather(
            client.chat(MESSAGES, max_tokens=48),
            client.chat(MESSAGES, weights={"harmless": 0.9}, max_tokens=48),
        )
        for answer in answers:
            print(answer.preference.source if answer.preference else "unknown", "->", answer.text)


def main() -> None:
    """The synchronous client, then the asynchronous one."""
    url, api_key = os.environ.get("PREFORCH_URL", "http://127.0.0.1:8000"), os.environ.get("PREFORCH_API_KEY")
    with_sync_client(url, api_key)
    asyncio.run(with_async_client(url, api_key))


if __name__ == "__main__":
    main()
