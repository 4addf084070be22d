"""API keys from file and environment, and the entries that `preforch keygen` makes."""

from pathlib import Path

import pytest
from preforch_cli.main import main
from preforch_service.keygen import entry, new_key
from preforch_service.keys import ApiKey, Keys, digest_of, read_keys
from preforch_service.settings import ServeSettings
from pydantic import ValidationError

ALICE, BOB, ADMIN = "alice-0123456789", "bob-0123456789abc", "admin-0123456789"


def write(file: Path, text: str, mode: int = 0o600) -> Path:
    file.write_text(text, encoding="utf-8")
    file.chmod(mode)
    return file


def test_keys_of_the_environment() -> None:
    keys = read_keys(None, {"PREFORCH_API_KEYS": f"alice:{ALICE}, {BOB}", "PREFORCH_ADMIN_KEY": ADMIN})
    assert [key.name for key in keys.keys] == ["alice", "env-2"]
    found = keys.find(BOB)
    assert found is not None
    assert found.name == "env-2"
    assert keys.find(ADMIN) is keys.find("") is keys.find(BOB + "x") is None
    assert (keys.is_admin(ADMIN), keys.is_admin(ALICE)) == (True, False)


def test_no_keys_where_none_are_given() -> None:
    assert (
        read_keys(None, {}) == read_keys(None, {"PREFORCH_API_KEYS": "", "PREFORCH_ADMIN_KEY": ""}) == Keys()
    )
    assert not Keys().is_admin("")


def test_keys_of_a_file_and_the_environment_together(tmp_path: Path) -> None:
    extra = 'requests_per_minute = 5\nmodels = ["wic"]\ncache_salt = "s"\n'
    file = write(tmp_path / "k.toml", entry("alice", ALICE) + extra + entry(None, ADMIN))
    keys = read_keys(file, {"PREFORCH_API_KEYS": BOB})
    alice, bob = keys.find(ALICE), keys.find(BOB)
    assert alice is not None
    assert bob is not None
    assert (alice.requests_per_minute, alice.may_use("wic"), alice.may_use("x"), alice.salt) == (
        5,
        True,
        False,
        "s",
    )
    assert (bob.requests_per_minute, bob.may_use("x")) == (None, True)
    assert keys.is_admin(ADMIN)


@pytest.mark.parametrize("salt", ["", "a/b", "a@b", "a\\b", "a\0b", "x" * 129])
def test_a_salt_that_the_engine_refuses_is_refused_at_the_start(salt: str) -> None:
    with pytest.raises(ValidationError, match="cache_salt"):
        ApiKey(name="a", sha256=digest_of("k"), cache_salt=salt)


def test_salts_differ_between_names_and_stay_the_same_for_one() -> None:
    one, two = read_keys(None, {"PREFORCH_API_KEYS": f"a:{ALICE},b:{BOB}"}).keys
    (again,) = read_keys(None, {"PREFORCH_API_KEYS": f"a:{BOB}"}).keys
    assert one.salt == again.salt != two.salt


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no keys"),
        ("keys", "not TOML"),
        ('[[keys]]\nname = "a"\nkey = "KEY"\n', "keys.0.key: Extra"),
        ('[[keys]]\nname = "a"\nsha256 = "KEY"\n', "keys.0.sha256"),
        ('[[keys]]\nname = "a b"\nsha256 = "HASH"\n', "keys.0.name"),
        ('[[keys]]\nname = "a"\nsha256 = "HASH"\nrequests_per_minute = 0\n', "requests_per_minute"),
        ('[[keys]]\nname = "a"\nsha256 = "HASH"\n' * 2, "same name: ['a']"),
        ('[[keys]]\nname = "a"\nsha256 = "HASH"\n[admin]\nsha256 = "HASH"\n', "given twice"),
    ],
)
def test_a_wrong_file_is_refused_without_quoting_a_key(tmp_path: Path, text: str, said: str) -> None:
    file = write(tmp_path / "k.toml", text.replace("HASH", digest_of(ALICE)).replace("KEY", ALICE))
    with pytest.raises(ValueError, match=r"k\.toml") as caught:
        read_keys(file, {})
    assert said in str(caught.value)
    assert ALICE not in str(caught.value)


def test_a_file_that_everyone_can_read_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path / "k.toml", entry("alice", ALICE), mode=0o644)
    with pytest.raises(ValueError, match=r"mode 0644.*chmod 600"):
        read_keys(file, {})


@pytest.mark.parametrize(
    "value", ["short", f"a:{ALICE},", f"{ALICE} x,{BOB}", f"ä{ALICE}", f"a:{ALICE},a:{BOB}"]
)
def test_wrong_keys_in_the_environment_are_refused_without_quoting_them(value: str) -> None:
    with pytest.raises(ValueError, match=r"PREFORCH_API_KEYS|same name") as caught:
        read_keys(None, {"PREFORCH_API_KEYS": value})
    assert ALICE not in str(caught.value)
    with pytest.raises(ValueError, match="PREFORCH_ADMIN_KEY"):
        read_keys(None, {"PREFORCH_ADMIN_KEY": "short"})


def test_keys_open_other_hosts_than_loopback() -> None:
    keys = read_keys(None, {"PREFORCH_API_KEYS": ALICE})
    given = {"path": Path("run"), "host": "0.0.0.0"}
    with pytest.raises(ValueError, match="only with API keys"):
        ServeSettings.model_validate(given)
    with pytest.raises(ValueError, match="only with API keys"):
        ServeSettings.model_validate({**given, "keys": read_keys(None, {"PREFORCH_ADMIN_KEY": ADMIN})})
    with pytest.raises(ValueError, match="exclude each other"):
        ServeSettings.model_validate({**given, "keys": keys, "no_auth": True})
    assert ServeSettings.model_validate({**given, "keys": keys}).keys is keys


def test_keygen_makes_an_entry_that_admits_the_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, keys = tmp_path / "k.toml", []
    for arguments in (["alice"], ["--admin"]):
        assert main(["keygen", *arguments]) == 0
        printed = capsys.readouterr()
        keys.append(printed.err.split()[-1])
        assert keys[-1].startswith("pk-")
        assert keys[-1] not in printed.out
        write(file, (file.read_text() if file.exists() else "") + printed.out)
    read = read_keys(file, {})
    found = read.find(keys[0])
    assert found is not None
    assert found.name == "alice"
    assert read.is_admin(keys[1])
    assert len({new_key() for _ in range(10)}) == 10


@pytest.mark.parametrize("arguments", [[], ["alice", "--admin"], ['a"b']])
def test_keygen_refuses_what_is_no_name(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keygen", *arguments]) == 2
    assert capsys.readouterr().out == ""
