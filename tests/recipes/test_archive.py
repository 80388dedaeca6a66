"""Packages are opened without trust: only what was asked for, only inside the folder, only whole."""

import io
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest

from descant.recipes import archive


def make_deb(path: Path, files: dict[str, bytes], packing: str = "xz", extra: tuple[tarfile.TarInfo, ...] = ()) -> Path:
    """A Debian package by hand: ar of debian-binary, control.tar, data.tar."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode=f"w:{packing}") as tar:
        for member in extra:
            tar.addfile(member)
        for name, body in files.items():
            row = tarfile.TarInfo(name)
            row.size = len(body)
            tar.addfile(row, io.BytesIO(body))
    members = {"debian-binary": b"2.0\n", "control.tar.xz": b"odd", f"data.tar.{packing}": data.getvalue()}
    with open(path, "wb") as out:
        out.write(b"!<arch>\n")
        for name, body in members.items():
            out.write(f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(body):<10}`\n".encode())
            out.write(body + b"\n" * (len(body) % 2))
    return path


@pytest.mark.parametrize("packing", ["xz", "gz", "bz2"])
def test_a_deb_gives_its_files_back(tmp_path: Path, packing: str) -> None:
    body = bytes(range(256)) * 500
    deb = make_deb(tmp_path / "a.deb", {"./usr/share/a/song.ogg": body, "./usr/share/doc/b": b"no"}, packing)
    found = archive.unpack_deb(deb, tmp_path / "out", lambda name: name == "usr/share/a/song.ogg")
    assert found == [tmp_path / "out/usr/share/a/song.ogg"]
    assert found[0].read_bytes() == body
    assert not (tmp_path / "out/usr/share/doc").exists()


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/etc/evil", "a\\..\\evil", "C:evil"])
def test_names_that_leave_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    deb = make_deb(tmp_path / "a.deb", {name: b"x"})
    with pytest.raises(archive.ArchiveError, match="outside the folder"):
        archive.unpack_deb(deb, tmp_path / "in" / "out")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as out:
        out.writestr(name, b"x")
    if name in zipfile.ZipFile(tmp_path / "a.zip").namelist():  # the library rewrites a backslash on some systems
        with pytest.raises(archive.ArchiveError, match="outside the folder"):
            archive.unpack_zip(tmp_path / "a.zip", tmp_path / "in" / "out")
    assert not list(tmp_path.rglob("*evil*"))


def test_links_never_reach_the_disk(tmp_path: Path) -> None:
    link, hard = tarfile.TarInfo("out"), tarfile.TarInfo("passwd")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc"
    hard.type, hard.linkname = tarfile.LNKTYPE, "/etc/passwd"
    deb = make_deb(tmp_path / "a.deb", {"out/new": b"x"}, extra=(link, hard))
    assert archive.unpack_deb(deb, tmp_path / "o") == [tmp_path / "o/out/new"]
    assert not (tmp_path / "o/out").is_symlink()
    assert not (tmp_path / "o/passwd").exists()
    row = zipfile.ZipInfo("link")
    row.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as out:
        out.writestr(row, "/etc")
        out.writestr("file", "y")
    assert archive.unpack_zip(tmp_path / "a.zip", tmp_path / "z") == [tmp_path / "z/file"]


def test_an_archive_that_swells_is_stopped(tmp_path: Path) -> None:
    deb = make_deb(tmp_path / "a.deb", {"zeros": bytes(3_000_000)})
    with pytest.raises(archive.ArchiveError, match="max_bytes"):
        archive.unpack_deb(deb, tmp_path / "o", max_bytes=2_000_000)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr("one", bytes(1_500_000))
        out.writestr("two", bytes(1_500_000))
    with pytest.raises(archive.ArchiveError, match="max_bytes"):
        archive.unpack_zip(tmp_path / "a.zip", tmp_path / "z", max_bytes=2_000_000)


def test_zstd_and_strangers_are_refused_with_a_way_out(tmp_path: Path) -> None:
    deb = make_deb(tmp_path / "a.deb", {"x": b"y"})
    deb.write_bytes(deb.read_bytes().replace(b"data.tar.xz ", b"data.tar.zst"))
    with pytest.raises(archive.ArchiveError, match="dpkg-deb -x"):
        archive.unpack_deb(deb, tmp_path / "o")
    deb.write_bytes(b"not a package")
    with pytest.raises(archive.ArchiveError, match="no ar header"):
        archive.unpack_deb(deb, tmp_path / "o")
    with pytest.raises(archive.ArchiveError, match="not a readable zip"):
        archive.unpack_zip(deb, tmp_path / "o")


def test_a_damaged_or_cut_package_is_reported(tmp_path: Path) -> None:
    deb = make_deb(tmp_path / "a.deb", {"x": bytes(range(256)) * 2000})
    whole = deb.read_bytes()
    middle = len(whole) - 200
    deb.write_bytes(whole[:middle] + b"\xff" * 60 + whole[middle + 60 :])
    with pytest.raises(archive.ArchiveError, match="damaged"):
        archive.unpack_deb(deb, tmp_path / "o")
    deb.write_bytes(whole[:middle])
    with pytest.raises(archive.ArchiveError):
        archive.unpack_deb(deb, tmp_path / "o")
    deb.write_bytes(whole[:100])
    with pytest.raises(archive.ArchiveError, match=r"no data\.tar"):
        archive.unpack_deb(deb, tmp_path / "o")


def test_verify_names_the_mismatch(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"abc")  # FIPS 180-2's first example
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    archive.verify(path, digest.upper())
    with pytest.raises(archive.ArchiveError, match=digest):
        archive.verify(path, "0" * 64)


def test_download_uses_the_package_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[list[str]] = []

    def client(command: list[str], cwd: Path, **_: object) -> subprocess.CompletedProcess[str]:
        calls.append(command)
        if "gone" in command[-1]:
            return subprocess.CompletedProcess(command, 100, "", "E: Unable to locate package gone")
        (Path(cwd) / "song_1.2_all.deb").write_bytes(b"")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(archive.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(archive.subprocess, "run", client)
    assert archive.download("song", tmp_path / "debs", "1.2") == tmp_path / "debs/song_1.2_all.deb"
    assert calls == [["apt-get", "download", "song=1.2"]]
    with pytest.raises(archive.ArchiveError, match="Unable to locate package gone"):
        archive.download("gone", tmp_path / "debs")
    monkeypatch.setattr(archive.shutil, "which", lambda name: None)
    with pytest.raises(archive.ArchiveError, match=r"fetch song=1\.2 yourself"):
        archive.download("song", tmp_path / "debs", "1.2")
