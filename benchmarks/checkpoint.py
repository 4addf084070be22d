"""The orchestrator as a plain classifier checkpoint, for servers that know only what transformers knows.

In:  the stage `orchestrator` of a run. Out: a folder with BertForSequenceClassification and the tokenizer.

BertForSequenceClassification has a layer tanh(D x) between pooling and classifier that the orchestrator
lacks. D is a small multiple of the identity here, so small that tanh hardly bends, and the classifier undoes
the multiple. What a server pools is its own business: the mean gives the orchestrator's weights; a server
that knows only the first token computes as much, but other numbers.

    python benchmarks/checkpoint.py runs/demo/orchestrator /tmp/classifier
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from preforch_models.orchestrator_model import OrchestratorModel
from tokenizers import Tokenizer
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

SMALL = 1e-3


def export(orchestrator: Path, target: Path) -> None:
    """Write the checkpoint. Raises ValueError for an orchestrator that is not softmax(linear(mean(BERT)))."""
    model = OrchestratorModel.from_pretrained(orchestrator)
    encoder = dict(model.config.encoder)
    shape = (encoder.pop("model_type"), model.config.pooling, model.config.layers)
    if shape != ("bert", "mean", [-1]) or model.config.confidence == "shrink":
        raise ValueError(
            f"{orchestrator}: only BERT, mean pooling of the last layer, no shrinkage; got {shape}"
        )
    config = BertConfig(**encoder, num_labels=len(model.config.objectives))
    classifier = BertForSequenceClassification(config)
    classifier.bert.load_state_dict(model.encoder.state_dict(), strict=False)
    with torch.no_grad():
        classifier.bert.pooler.dense.weight.copy_(SMALL * torch.eye(config.hidden_size))
        classifier.bert.pooler.dense.bias.zero_()
        classifier.classifier.weight.copy_(model.head.weight / SMALL)
        classifier.classifier.bias.copy_(model.head.bias)
    classifier.save_pretrained(target)
    tokenizer = Tokenizer.from_file(str(orchestrator / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=tokenizer.id_to_token(config.pad_token_id)
    )
    fast.save_pretrained(target)
    # Under the name that transformers 4 knows too: infinity pins it.
    about = target / "tokenizer_config.json"
    settings = json.loads(about.read_text(encoding="utf-8")) | {"tokenizer_class": "PreTrainedTokenizerFast"}
    about.write_text(json.dumps(settings), encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> None:
    """Write the checkpoint folder that the arguments name."""
    parser = argparse.ArgumentParser(description="The orchestrator as a plain classifier checkpoint.")
    parser.add_argument("orchestrator", type=Path)
    parser.add_argument("target", type=Path)
    options = parser.parse_args(argv)
    export(options.orchestrator, options.target)


if __name__ == "__main__":
    main()
