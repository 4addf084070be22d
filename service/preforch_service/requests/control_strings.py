"""Keeps control strings (special tokens of the policy) out of everything that the chat template can see.

In:  strings, and JSON values with strings and mapping keys at any depth.
Out: the same with control strings escaped, or BadRequest, as the operator chose.
"""

import json
from collections.abc import Sequence

from preforch_models.control_strings import JOINER, ControlStrings

from preforch_service.errors import BadRequest
from preforch_service.requests.body import check_encodable
from preforch_service.settings import ControlMode
from preforch_service.telemetry.metrics import Metrics

MAX_DEPTH = 64
LONGEST_PARAM = 200


class ControlGuard:
    """Escapes control strings, or rejects texts that hold one, as the operator chose."""

    def __init__(self, strings: ControlStrings, *, mode: ControlMode, metrics: Metrics) -> None:
        self._strings = strings
        self._mode = mode
        self._metrics = metrics

    def text(self, text: str, param: str) -> str:
        """One string. `param` is what an error names."""
        found = self._strings.find(text)
        if found is None:
            return text
        self._metrics.control_strings.labels(self._mode).inc()
        escaped = self._strings.escape(text)
        if self._mode == "reject" or self._strings.find(escaped) is not None:
            raise BadRequest(
                f"the text holds the control string {found!r}", param=param, code="control_string"
            )
        return escaped

    def apart(self, texts: Sequence[str], params: Sequence[str]) -> list[str]:
        """Checked texts that something may join: no control string lies over a border of them.

        The later text begins with a joiner then. `params` are those of the texts.
        """
        found, before = [], ""
        for text, param in zip(texts, params, strict=True):
            border = before + text[: self._strings.longest]
            apart = text if self.text(border, param) == border else JOINER + text
            found.append(apart)
            before = (before + apart)[-self._strings.longest :]
        return found

    def value(self, value: object, param: str, depth: int = 0) -> object:
        """A JSON value: all strings in it and all keys of its mappings."""
        # A key may be a megabyte long, and everything below it has it in its name.
        param = param[:LONGEST_PARAM]
        if depth > MAX_DEPTH:
            raise BadRequest(f"nested deeper than {MAX_DEPTH}", param=param)
        if isinstance(value, str):
            return self.text(value, param)
        if isinstance(value, list):
            return [self.value(item, f"{param}[{i}]", depth + 1) for i, item in enumerate(value)]
        if isinstance(value, dict):
            return {self.text(k, param): self.value(v, f"{param}.{k}", depth + 1) for k, v in value.items()}
        return value

    def json_text(self, text: str, param: str) -> str:
        """A string that the engine may read as JSON, so that `\\u003cW1>` in it becomes a control string."""
        try:
            decoded = json.loads(text)
        except json.JSONDecodeError:
            return self.text(text, param)
        except (ValueError, RecursionError) as error:
            # The engine's stack, or its limit of digits, may be another one.
            raise BadRequest(
                "JSON that is nested too deeply, or a number with too many digits", param=param
            ) from error
        check_encodable(decoded)
        guarded = self.value(decoded, param)
        return self.text(text if guarded == decoded else json.dumps(guarded, ensure_ascii=False), param)
