"""`preforch chat [PROMPT]`: a conversation with a gateway, streamed to the terminal.

In:  a prompt argument (one answer, then the end), or lines: from a terminal with a prompt sign, else one turn
     per line.
Out: answers on stdout; the weights that were used, before each answer, on stderr, so that a pipe gets answers
     only.
"""

import argparse
import contextlib
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, TextIO

from preforch_models.weights import parse_assignments

from preforch_cli.errors import CommandFailed
from preforch_cli.gateway import add_gateway_arguments, gateway_client

if TYPE_CHECKING:
    from preforch_client import Client, Preference

COMMANDS = "/weights helpful=0.7,harmless=0.3   /weights auto   /reset   /quit"

# What a model writes must not move the cursor or retitle the window.
_UNPRINTABLE = {code: None for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Without a prompt, `run` reads turns from stdin."""
    parser.add_argument("prompt", nargs="?", help="answer this and stop; without it, read turns from stdin")
    parser.add_argument(
        "--weights", metavar="NAME=NUMBER,...", help="all or some weights (default: recommended ones)"
    )
    parser.add_argument("--max-tokens", type=int, metavar="N", help="longest answer")
    add_gateway_arguments(parser)
    parser.epilog = f"In the conversation: {COMMANDS}"


def run(args: argparse.Namespace) -> int:
    """Answer the prompt, or turn after turn."""
    weights = None if args.weights is None else parse_assignments(args.weights)
    with gateway_client(args) as client:
        conversation = Conversation(client, weights=weights, max_tokens=args.max_tokens)
        if args.prompt is not None:
            conversation.answer(args.prompt)
        else:
            _converse(conversation, sys.stdin)
    return 0


class Conversation:
    """The turns so far, and the weights for the next one (None: as recommended)."""

    def __init__(
        self, client: "Client", *, weights: Mapping[str, float] | None, max_tokens: int | None
    ) -> None:
        self._client = client
        self._weights = weights
        self._options = {} if max_tokens is None else {"max_tokens": max_tokens}
        self._messages: list[dict[str, object]] = []

    def take(self, line: str) -> bool:
        """Do what one line says. False when it says that this is the end."""
        word, _, rest = line.strip().partition(" ")
        if word == "/quit":
            return False
        if word == "/reset":
            self._messages.clear()
        elif word == "/weights":
            self._weights = None if rest.strip() == "auto" else parse_assignments(rest)
        elif word.startswith("/"):
            raise ValueError(f"unknown command {word!r}; there are: {COMMANDS}")
        elif word:
            self.answer(line.strip())
        return True

    def answer(self, prompt: str) -> None:
        """Stream one answer. A turn that failed is not remembered."""
        turn: dict[str, object] = {"role": "user", "content": prompt}
        parts: list[str] = []
        messages = [*self._messages, turn]
        with self._client.chat(messages, weights=self._weights, stream=True, **self._options) as chunks:
            for chunk in chunks:
                if chunk.preference is not None:
                    print(used(chunk.preference), file=sys.stderr, flush=True)
                parts.append(chunk.text)
                print(chunk.text.translate(_UNPRINTABLE), end="", flush=True)
        print()
        self._messages = [*messages, {"role": "assistant", "content": "".join(parts)}]


def used(preference: "Preference") -> str:
    """One line: the weights of the answer that follows, and whether they make a difference to it."""
    shown = "  ".join(f"{name} {value:.2f}" for name, value in preference.weights.items())
    bounds = ", within bounds" if preference.clamped else ""
    unread = "" if preference.applied else ", not read by this policy"
    return f"[{shown} | {preference.source}{bounds}{unread}]"


def _converse(conversation: Conversation, source: TextIO) -> None:
    """Take lines until the end.

    In a terminal an error is shown and the conversation goes on; in a script it ends.
    """
    # Late, as in `gateway`: the client needs httpx.
    from preforch_client import PreferenceError

    interactive = source.isatty()
    for line in _typed_lines() if interactive else source:
        try:
            if not conversation.take(line):
                return
        except (PreferenceError, CommandFailed, ValueError) as error:
            if not interactive:
                raise
            print(f"preforch: error: {error}", file=sys.stderr)


def _typed_lines() -> Iterator[str]:
    """Lines typed at a prompt sign, with history where readline is there, until Ctrl-D."""
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  importing it is what gives input() its history

    print(COMMANDS, file=sys.stderr)
    while True:
        try:
            yield input("> ")
        except EOFError:
            print()
            return
