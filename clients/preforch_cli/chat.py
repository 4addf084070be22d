"""`preforch chat [PROMPT]`: a conversation with a gateway, streamed to the terminal.

In:  a prompt argument (one answer, then the end), or lines: from a terminal with a prompt sign, else one turn
     per line. A line that begins with `/` is a command, see `COMMANDS`.
Out: answers on stdout; the weights that were used, before each answer, on stderr, so that a pipe gets answers
     only.
"""

import argparse
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

from preforch_models.weights import parse_assignments

from preforch_cli.errors import CommandFailed
from preforch_cli.gateway import add_gateway_arguments, gateway_client
from preforch_cli.line_editor import OFF, default_history, typed_lines

if TYPE_CHECKING:
    from preforch_client import Client, Preference

# What a model writes must not move the cursor or retitle the window.
_UNPRINTABLE = {code: None for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Without a prompt, `run` reads turns from stdin."""
    parser.add_argument("prompt", nargs="?", help="answer this and stop; without it, read turns from stdin")
    asked = parser.add_mutually_exclusive_group()
    asked.add_argument(
        "--weights", metavar="NAME=NUMBER,...", help="all or some weights (default: recommended ones)"
    )
    asked.add_argument("--preset", metavar="NAME", help="weights that the gateway has under this name")
    parser.add_argument("--max-tokens", type=int, metavar="N", help="longest answer")
    parser.add_argument(
        "--history",
        metavar="FILE",
        default=default_history(),
        help=f"where typed lines are kept, or {OFF} (default: $PREFORCH_HISTORY or %(default)s)",
    )
    add_gateway_arguments(parser)
    parser.epilog = f"In the conversation: {', '.join(command.usage for command in COMMANDS.values())}"


def run(args: argparse.Namespace) -> int:
    """Answer the prompt, or turn after turn."""
    with gateway_client(args) as client:
        conversation = Conversation(client, max_tokens=args.max_tokens)
        if args.weights is not None:
            conversation.ask_weights(args.weights)
        if args.preset is not None:
            conversation.ask_preset(args.preset)
        if args.prompt is not None:
            conversation.answer(args.prompt)
        else:
            _converse(conversation, sys.stdin, history=args.history)
    return 0


class Conversation:
    """The turns so far, and what the next request asks for (nothing: weights as recommended)."""

    def __init__(self, client: "Client", *, max_tokens: int | None) -> None:
        self._client = client
        self._weights: Mapping[str, float] | None = None
        self._preset: str | None = None
        self._options: dict[str, object] = {} if max_tokens is None else {"max_tokens": max_tokens}
        self._messages: list[dict[str, object]] = []
        self.over = False

    def take(self, line: str) -> None:
        """Do what one line says. Raises ValueError for a command that is none."""
        word, _, rest = line.strip().partition(" ")
        if word in COMMANDS:
            COMMANDS[word].act(self, rest.strip())
        elif word.startswith("/"):
            raise ValueError(f"unknown command {word!r}; there are {', '.join(COMMANDS)}")
        elif word:
            self.answer(line.strip())

    def ask_weights(self, text: str) -> None:
        """From now on all or some weights, or `auto`: the recommended ones."""
        self._weights = None if text == AUTO else parse_assignments(text)
        self._preset = None

    def ask_preset(self, name: str) -> None:
        """From now on the gateway's weights of this name, or `auto`: the recommended ones."""
        if not name:
            raise ValueError(f"a preset is named: {COMMANDS['/preset'].usage}")
        self._weights = None
        self._preset = None if name == AUTO else name

    def reset(self, _rest: str) -> None:
        """Forget the turns so far."""
        self._messages.clear()

    def end(self, _rest: str) -> None:
        """No further line."""
        self.over = True

    def answer(self, prompt: str) -> None:
        """Stream one answer. A turn that failed, or was interrupted, is not remembered."""
        turn: dict[str, object] = {"role": "user", "content": prompt}
        parts: list[str] = []
        messages = [*self._messages, turn]
        asked = self._client.chat(
            messages, weights=self._weights, preset=self._preset, stream=True, **self._options
        )
        with asked as chunks:
            for chunk in chunks:
                if chunk.preference is not None:
                    print(used(chunk.preference), file=sys.stderr, flush=True)
                parts.append(chunk.text)
                print(chunk.text.translate(_UNPRINTABLE), end="", flush=True)
        print()
        self._messages = [*messages, {"role": "assistant", "content": "".join(parts)}]


AUTO = "auto"
"""In the place of weights or of a preset: as recommended."""


@dataclass(frozen=True)
class LineCommand:
    """A line that begins with `/`: how it is written, what it does."""

    usage: str
    summary: str
    act: Callable[[Conversation, str], None]


def show_help(_conversation: Conversation, _rest: str) -> None:
    """A line for each command, on stderr."""
    width = max(len(command.usage) for command in COMMANDS.values())
    for command in COMMANDS.values():
        print(f"{command.usage:<{width}}  {command.summary}", file=sys.stderr)


COMMANDS = {
    "/weights": LineCommand(
        "/weights helpful=0.8,harmless=0.2",
        f"these weights from now on, all or some; {AUTO}: recommended ones",
        Conversation.ask_weights,
    ),
    "/preset": LineCommand(
        "/preset NAME",
        f"weights that the gateway has under this name; {AUTO}: recommended ones",
        Conversation.ask_preset,
    ),
    "/reset": LineCommand("/reset", "forget the turns so far", Conversation.reset),
    "/help": LineCommand("/help", "show this", show_help),
    "/quit": LineCommand("/quit", "end, as Ctrl-D does; Ctrl-C stops an answer", Conversation.end),
}


def used(preference: "Preference") -> str:
    """One line: the weights of the answer that follows, and whether they make a difference to it."""
    shown = "  ".join(f"{name} {value:.2f}" for name, value in preference.weights.items())
    bounds = ", within bounds" if preference.clamped else ""
    unread = "" if preference.applied else ", not read by this policy"
    advice = ", advice to a model not trained to follow them" if preference.advice else ""
    return f"[{shown} | {preference.source}{bounds}{unread}{advice}]"


def _converse(conversation: Conversation, source: TextIO, *, history: str) -> None:
    """Take lines until the end.

    In a terminal an error is shown and the conversation goes on, as after an answer that is interrupted; in a
    script it ends.
    """
    # Late, as in `gateway`: the client needs httpx.
    from preforch_client import PreferenceError

    interactive = source.isatty()
    if interactive:
        print(f"{', '.join(COMMANDS)}; /help says what they do", file=sys.stderr)
    for line in typed_lines(history, tuple(COMMANDS)) if interactive else source:
        try:
            conversation.take(line)
        except KeyboardInterrupt:
            if not interactive:
                raise
            print("\npreforch: stopped; this turn is forgotten", file=sys.stderr)
        except (PreferenceError, CommandFailed, ValueError) as error:
            if not interactive:
                raise
            print(f"preforch: error: {error}", file=sys.stderr)
        if conversation.over:
            return
