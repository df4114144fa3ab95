"""API keys: made once, kept as hashes, read again when the file changes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deployments import keys
from deployments.__main__ import main
from deployments.keys import KeyRing, new_key, read_keys
from voice_core.errors import SettingError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys"


def put(file: Path, *lines: str) -> None:
    file.write_text("\n".join(lines), encoding="utf-8")


def test_a_key_opens_and_its_file_doesnt_hold_it(file: Path) -> None:
    key, line = new_key("ann")
    put(file, "# who may speak", "", line)
    ring = KeyRing(file)
    found = ring.find(key)
    assert found is not None
    assert found.name == "ann"
    assert key not in file.read_text(encoding="utf-8")


@pytest.mark.parametrize("sent", ["", "vs-", "wrong", "x" * 10_000, "caf\u00e9", "\udcff"])
def test_another_key_opens_nothing(file: Path, sent: str) -> None:
    put(file, new_key("ann")[1])
    assert KeyRing(file).find(sent) is None


def test_every_entry_is_compared_whichever_fits(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = [new_key(name) for name in ("ann", "bob", "eve")]
    put(file, *(line for _, line in made))
    ring = KeyRing(file)
    compared: list[str] = []
    fits = keys.Key.fits
    monkeypatch.setattr(keys.Key, "fits", lambda key, sent: compared.append(key.name) or fits(key, sent))
    assert ring.find(made[0][0]) is not None
    assert compared == ["ann", "bob", "eve"]


def test_a_changed_file_is_read_again_and_a_broken_one_locks_nobody_out(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "LOOK_AGAIN_SECONDS", 0.0)
    (first, line), (second, other_line) = new_key("ann"), new_key("bob")
    put(file, line)
    ring = KeyRing(file)
    put(file, line, other_line)
    assert ring.find(second) is not None
    put(file, "not JSON")
    assert ring.find(first) is not None
    put(file, other_line)
    assert ring.find(first) is None
    file.unlink()
    assert ring.find(second) is not None


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"most_seconds": 3}, "line 1: most_seconds: Extra inputs"),
        ({"sha256": "abc"}, "line 1: sha256"),
        ({"priorities": ["urgent"]}, "line 1: priorities.0"),
        ({"name": "a\nb"}, "line 1: name"),
    ],
)
def test_a_wrong_line_is_told_by_number_and_field_and_not_by_its_content(
    file: Path, change: dict[str, object], told: str
) -> None:
    line = json.loads(new_key("ann")[1])
    put(file, json.dumps(line | change))
    with pytest.raises(SettingError, match=told) as error:
        read_keys(file)
    assert line["salt"] not in str(error.value)


def test_a_name_is_there_once(file: Path) -> None:
    put(file, new_key("ann")[1], new_key("ann")[1])
    with pytest.raises(SettingError, match="line 2: the name 'ann' is there twice"):
        read_keys(file)


def test_a_missing_file_is_a_wrong_setting(file: Path) -> None:
    with pytest.raises(SettingError, match="can't be read"):
        KeyRing(file)


def test_the_command_shows_a_new_key_once_and_the_line_for_the_file(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["key", "new", "ann"]) == 0
    shown = capsys.readouterr()
    key, line = shown.err.strip().split()[-1], shown.out.strip()
    put(file, line)
    found = KeyRing(file).find(key)
    assert found is not None
    assert found.name == "ann"


def test_a_name_that_no_log_should_hold_is_refused() -> None:
    with pytest.raises(SystemExit):
        main(["key", "new", "two words"])
