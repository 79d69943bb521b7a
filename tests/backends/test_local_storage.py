"""What a directory of this machine does beyond the contract of Storage: others write there with the same account."""

from __future__ import annotations

from pathlib import Path

import pytest

from backends.local import storage as local
from backends.local.storage import LocalStorage
from scheduler.model.errors import FileRefused


def files_below(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A directory beside the root, and a file in it that nobody may change."""
    (tmp_path / "root").mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/kept").write_text("kept")
    return tmp_path / "outside"


async def test_a_copy_writes_through_no_link_that_lies_at_its_target(tmp_path: Path, outside: Path) -> None:
    root = tmp_path / "root"
    (root / "tree/sub").mkdir(parents=True)
    (root / "tree/kept").write_text("changed")
    (root / "tree/sub/new").write_text("new")
    (root / "there").mkdir()
    (root / "there/sub").symlink_to(outside)
    (root / "there/kept").symlink_to(outside / "kept")
    with pytest.raises(FileRefused, match="is a link at the target"):
        await LocalStorage(root).copy("tree", "there")
    (root / "there/sub").unlink()
    await LocalStorage(root).copy("tree", "there")
    assert (root / "there/kept").read_text() == "changed"
    assert (root / "there/sub/new").read_text() == "new"
    assert files_below(outside) == {"kept": "kept"}


async def test_between_two_disks_what_is_moved_is_copied_and_then_named(tmp_path: Path, monkeypatch) -> None:
    real = Path.rename

    def rename(self: Path, target: Path) -> Path:
        if not self.name.startswith("."):
            raise OSError(local.errno.EXDEV, "Invalid cross-device link")
        return real(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/a").write_text("a")
    (tmp_path / "f").write_text("f")
    await LocalStorage(tmp_path).move("tree", "moved/tree")
    await LocalStorage(tmp_path).move("f", "moved/f")
    assert files_below(tmp_path) == {"moved/tree/a": "a", "moved/f": "f"}


async def test_a_directory_that_becomes_a_link_after_it_was_looked_at_leads_nowhere(
    tmp_path: Path, outside: Path, monkeypatch
) -> None:
    folder = tmp_path / "root/a"
    real = local.os.open

    def swapped(path, flags, mode=0o777):
        if folder.is_dir() and not folder.is_symlink():
            folder.rename(folder.with_name(f"was-{len(list(folder.parent.iterdir()))}"))
            folder.symlink_to(outside)
        return real(path, flags, mode)

    async def piece():
        yield b"new"

    storage = LocalStorage(tmp_path / "root")
    monkeypatch.setattr(local.os, "open", swapped)
    for act in (lambda: anext(storage.read("a/kept")), lambda: storage.write("a/kept", piece())):
        folder.unlink(missing_ok=True)
        folder.mkdir()
        (folder / "kept").write_text("own")
        with pytest.raises(FileRefused, match="became a link meanwhile"):
            await act()
    assert (outside / "kept").read_text() == "kept"
