"""How much memory there is: that of the machine, or the least of the limits that are set for this process."""

from pathlib import Path

import pytest

from charrnn import memory


@pytest.mark.parametrize(
    ("own", "files", "limit"),
    [
        ("0::/\n", {"memory.max": "1000000\n"}, 1_000_000),
        ("0::/a/b\n", {"a/b/memory.max": "max\n", "a/memory.max": "2000000\n", "memory.max": "max\n"}, 2_000_000),
        ("0::/a/b\n", {"a/b/memory.max": "1000000\n", "a/memory.max": "2000000\n"}, 1_000_000),
        ("0::/seen/outside\n", {"memory.max": "3000000\n"}, 3_000_000),
        ("5:cpu:/\n4:memory:/a\n0::/\n", {"memory/a/memory.limit_in_bytes": "4000000\n"}, 4_000_000),
    ],
)
def test_a_container_has_what_its_group_may_have(
    own: str, files: dict[str, str], limit: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(memory, "GROUPS", tmp_path / "groups")
    monkeypatch.setattr(memory, "OWN_GROUPS", tmp_path / "own")
    (tmp_path / "own").write_text(own, encoding="utf-8")
    for name, content in files.items():
        (tmp_path / "groups" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "groups" / name).write_text(content, encoding="utf-8")
    assert memory.total_bytes() == limit


@pytest.mark.parametrize("own", ["", "0::/\n", "damaged", "4:memory:/a\n0::/\n"])
def test_without_such_limits_it_is_the_machines(own: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(memory, "GROUPS", tmp_path)
    monkeypatch.setattr(memory, "OWN_GROUPS", tmp_path / "missing")
    of_the_machine = memory.total_bytes()
    monkeypatch.setattr(memory, "OWN_GROUPS", tmp_path / "own")
    (tmp_path / "own").write_text(own, encoding="utf-8")
    assert memory.total_bytes() == of_the_machine
