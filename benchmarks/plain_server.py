"""A classifier served by FastAPI and transformers, as people write it: one text per request.

In:  the stage `orchestrator` of a run. Out: POST /classify {"text"} -> {"weights"}.

FastAPI runs such a function in a pool of threads, so requests that come together are computed beside each
other, each by itself.

    python benchmarks/plain_server.py runs/demo/orchestrator --port 8002 --threads 2
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
import uvicorn
from fastapi import FastAPI
from preforch_models.orchestrator_model import OrchestratorModel
from pydantic import BaseModel
from transformers import PreTrainedTokenizerFast


class Asked(BaseModel):
    """The body of a request: one text."""

    text: str


def create_app(orchestrator: Path) -> FastAPI:
    """The application, with the checkpoint loaded into it."""
    model = OrchestratorModel.from_pretrained(orchestrator).eval()
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(orchestrator / "tokenizer.json"))
    app = FastAPI()

    @app.post("/classify")
    def classify(asked: Asked) -> dict[str, list[float]]:
        inputs = tokenizer(
            asked.text, truncation=True, max_length=model.config.max_tokens, return_tensors="pt"
        )
        with torch.no_grad():
            weights_1K, _ = model.serve(inputs["input_ids"], inputs["attention_mask"])
        return {"weights": weights_1K[0].tolist()}

    @app.get("/health")
    def health() -> dict[str, str]:
        return {"status": "ok"}

    return app


def main(argv: Sequence[str] | None = None) -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description="A classifier served by FastAPI and transformers.")
    parser.add_argument("orchestrator", type=Path)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    uvicorn.run(create_app(options.orchestrator), port=options.port, access_log=False)


if __name__ == "__main__":
    main()
