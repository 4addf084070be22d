"""`preforch keygen NAME`: makes an API key.

Out: the TOML entry for the file of `--api-keys` on stdout, so that it can be appended to it; the key on
     stderr. The key is shown this once: the entry holds its hash only.
"""

import argparse
import re
import secrets
import sys

from preforch_service.keys import NAME, digest_of

PREFIX = "pk-"
RANDOM_BYTES = 32


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """A NAME, or --admin: `run` refuses both and neither."""
    parser.add_argument(
        "name", nargs="?", metavar="NAME", help="whose key it is: letters, digits, '.', '_', '-'"
    )
    parser.add_argument("--admin", action="store_true", help="the key for /admin/* instead; it has no name")
    parser.epilog = (
        "preforch keygen alice >> keys.toml && chmod 600 keys.toml && preforch serve RUN --api-keys keys.toml"
    )


def run(args: argparse.Namespace) -> int:
    """Print a new key and its entry. Raises ValueError for a wrong name."""
    if (args.name is None) != args.admin:
        raise ValueError("either a NAME or --admin is needed")
    key = new_key()
    print(entry(args.name, key), flush=True)
    print(f"the key, shown this once: {key}", file=sys.stderr)
    return 0


def new_key() -> str:
    """`pk-` and 256 random bits."""
    return PREFIX + secrets.token_urlsafe(RANDOM_BYTES)


def entry(name: str | None, key: str) -> str:
    """The TOML that admits a key; without a name, as the admin's."""
    if name is None:
        return f'[admin]\nsha256 = "{digest_of(key)}"\n'
    if not re.fullmatch(NAME, name):
        raise ValueError(f"name {name!r} must be 1 to 64 letters, digits, '.', '_' or '-'")
    return f'[[keys]]\nname = "{name}"\nsha256 = "{digest_of(key)}"\n'
