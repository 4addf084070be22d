"""API keys: who may call the gateway, how often, for which models, and within which bounds of the weights.

In:  `--api-keys FILE` (TOML with hashes) and the environment (PREFORCH_API_KEYS, PREFORCH_ADMIN_KEY).
Out: `Keys`, which hold SHA-256 hashes only; or ValueError naming what is wrong, never quoting a key.

A plain SHA-256 is enough because keys are long and random (`preforch keygen`): there is nothing to guess.
"""

import hashlib
import hmac
import stat
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from preforch_models.objectives import Record
from pydantic import Field, ValidationError, model_validator

KEYS_VARIABLE = "PREFORCH_API_KEYS"
ADMIN_VARIABLE = "PREFORCH_ADMIN_KEY"
SHORTEST = 16

HASH = r"[0-9a-f]{64}"
NAME = r"[A-Za-z0-9._-]{1,64}"


def digest_of(key: str) -> str:
    """The hash by which a key is known.

    Any text will do: what a client sends is not a key until it is found.
    """
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


class AdminKey(Record):
    """The key for `/admin/*`, and for nothing else."""

    sha256: str = Field(
        pattern=f"^{HASH}$", description="SHA-256 of the key, 64 lower-case hexadecimal digits"
    )


class Bound(Record):
    """The interval that a key leaves for the weight of one objective."""

    low: float = Field(default=0.0, ge=0.0, le=1.0)
    high: float = Field(default=1.0, ge=0.0, le=1.0)


class ApiKey(AdminKey):
    """One key for the data routes."""

    name: str = Field(pattern=f"^{NAME}$", description="letters, digits, '.', '_' and '-'")
    requests_per_minute: int | None = Field(default=None, ge=1, description="default: as many as it likes")
    models: tuple[str, ...] | None = Field(
        default=None, description="NAME, or NAME@PRESET for that preset alone; default: all that are served"
    )
    bounds: dict[str, Bound] = Field(
        default={}, description="of weights, by objective, on top of the operator's"
    )
    cache_salt: str | None = Field(
        default=None,
        pattern=r"^[^@/\\\x00]{1,128}$",
        description="1 to 128 characters without @, / and \\, which vLLM refuses; default: from the name",
    )

    def may_use(self, model: str, preset: str | None = None) -> bool:
        """Whether the key is allowed to use a model, under a preset and without weights of its own if one is
        named. Who may use a model may use it under any preset."""
        if self.models is None or model in self.models:
            return True
        return preset is not None and f"{model}@{preset}" in self.models

    @property
    def salt(self) -> str:
        """Keeps this key's prefixes in the engine's cache apart from those of other keys, over restarts."""
        return self.cache_salt or digest_of(f"preforch cache salt of {self.name}")


class Keys(Record):
    """All keys. Without `keys` the data routes are open; without `admin` the admin routes are closed."""

    keys: tuple[ApiKey, ...] = ()
    admin: AdminKey | None = None

    @model_validator(mode="after")
    def _check(self) -> "Keys":
        names = [key.name for key in self.keys]
        hashes = [key.sha256 for key in self.keys] + ([self.admin.sha256] if self.admin else [])
        if len(set(names)) < len(names):
            raise ValueError(
                f"two API keys have the same name: {sorted(n for n in set(names) if names.count(n) > 1)}"
            )
        if len(set(hashes)) < len(hashes):
            raise ValueError("one key is given twice; every name, and the admin, needs a key of its own")
        return self

    def find(self, key: str) -> ApiKey | None:
        """The entry of a key that a client sent. Compares with all entries, so that time tells nothing."""
        digest, found = digest_of(key), None
        for entry in self.keys:
            if hmac.compare_digest(entry.sha256, digest):
                found = entry
        return found

    def is_admin(self, key: str) -> bool:
        """Whether a client sent the admin key."""
        return self.admin is not None and hmac.compare_digest(self.admin.sha256, digest_of(key))


def read_keys(file: Path | None, environ: Mapping[str, str]) -> Keys:
    """All keys of file and environment together. Raises ValueError or OSError."""
    entries: list[Any] = []
    admin: Any = None
    if file is not None:
        found = _read_file(file)
        entries, admin = list(found.keys), found.admin
    entries += _keys_of_variable(environ.get(KEYS_VARIABLE, ""))
    if environ.get(ADMIN_VARIABLE):
        if admin is not None:
            raise ValueError(f"the admin key is given twice, by {ADMIN_VARIABLE} and by {file}")
        admin = {"sha256": digest_of(_checked(environ[ADMIN_VARIABLE], ADMIN_VARIABLE))}
    return _validated(Keys, {"keys": entries, "admin": admin}, "API keys")


def _read_file(file: Path) -> Keys:
    mode = file.stat().st_mode
    if mode & stat.S_IROTH:
        raise ValueError(f"{file} can be read by everyone (mode {stat.S_IMODE(mode):04o}); chmod 600 {file}")
    found = _validated(Keys, read_toml(file), str(file))
    if not found.keys and found.admin is None:
        raise ValueError(f"{file} holds no keys; `preforch keygen NAME` makes an entry")
    return found


def read_toml(file: Path) -> dict[str, Any]:
    """What a TOML file holds. Raises ValueError or OSError."""
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is not TOML: {error}") from error


def _validated(model: type[Keys], content: Mapping[str, Any], where: str) -> Keys:
    """The content as keys.

    The error names fields but no values: somebody may have put a key where its hash belongs.
    """
    try:
        return model.model_validate(content)
    except ValidationError as error:
        wrong = [
            f"{'.'.join(map(str, e['loc'])) or 'keys'}: {e['msg']}" for e in error.errors(include_input=False)
        ]
        raise ValueError(f"{where}: {'; '.join(wrong)}") from None


def _keys_of_variable(text: str) -> Iterator[dict[str, str]]:
    """`name:key` pairs or plain keys, comma separated; a plain one is named by its place."""
    for place, item in enumerate(text.split(",") if text.strip() else (), start=1):
        name, colon, key = item.strip().rpartition(":")
        where = f"key {place} of {KEYS_VARIABLE}"
        yield {"name": name if colon else f"env-{place}", "sha256": digest_of(_checked(key, where))}


def _checked(key: str, where: str) -> str:
    if len(key) < SHORTEST or not key.isascii() or not key.isprintable() or " " in key:
        raise ValueError(f"{where} must be at least {SHORTEST} printable ASCII characters without spaces")
    return key
