from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from descant.codec.model import Codec, nano
from descant.recipes import builtin, prepare
from descant.recipes.audio_of import mixdown, render_piece
from descant.recipes.piece import read_pieces, write_pieces
from descant.recipes.tokens import TokenSet


@pytest.fixture(scope="module")
def pieces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pieces") / "train.jsonl.gz"
    write_pieces(path, [builtin.compose(seed, duration=2.0) for seed in range(3)])
    return path


@pytest.fixture(scope="module")
def codec() -> Codec:
    torch.manual_seed(0)
    return Codec(nano()).eval()


def test_tokens_are_those_of_the_rendered_mix(pieces: Path, codec: Codec, tmp_path: Path) -> None:
    assert prepare.tokenise(codec, pieces, tmp_path, quiet=True) == 3
    data = TokenSet(tmp_path)
    for piece, rows in zip(read_pieces(pieces), data.codes, strict=True):
        mix = mixdown(render_piece(piece, 32000)).mean(0)
        assert np.array_equal(rows[:].T, codec.encode(mix[None, None], 4)[0].numpy())
    assert [piece.id for piece in data.pieces] == [piece.id for piece in read_pieces(pieces)]


def test_a_second_run_does_nothing_and_a_lost_shard_is_made_again(
    pieces: Path, codec: Codec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare, "SHARD", 2)
    prepare.tokenise(codec, pieces, tmp_path, quiet=True)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [
        "pieces-00000.jsonl.gz", "pieces-00001.jsonl.gz", "tokens-00000.npy", "tokens-00000.starts.npy",
        "tokens-00001.npy", "tokens-00001.starts.npy", "tokens.json",
    ]  # fmt: skip
    kept, lost = tmp_path / "tokens-00000.npy", tmp_path / "tokens-00001.npy"
    before, bytes_lost = kept.stat().st_mtime_ns, lost.read_bytes()
    lost.unlink()
    prepare.tokenise(codec, pieces, tmp_path, quiet=True)
    assert kept.stat().st_mtime_ns == before
    assert lost.read_bytes() == bytes_lost


def test_a_folder_of_the_earlier_form_goes_on_in_the_packed_one(
    pieces: Path, codec: Codec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare, "SHARD", 2)
    prepare.tokenise(codec, pieces, tmp_path, quiet=True)
    whole = TokenSet(tmp_path)
    codes = [rows[:] for rows in whole.codes]
    for name in ("tokens-00000.npy", "tokens-00000.starts.npy", "tokens-00001.npy"):
        (tmp_path / name).unlink()
    starts = np.cumsum([0, *(len(rows) for rows in codes[:2])])
    np.savez(tmp_path / "tokens-00000.npz", codes=np.concatenate(codes[:2]), starts=starts)
    prepare.tokenise(codec, pieces, tmp_path, quiet=True)
    assert not (tmp_path / "tokens-00000.npy").exists() and (tmp_path / "tokens-00001.npy").exists()
    again = TokenSet(tmp_path)
    assert [piece.id for piece in again.pieces] == [piece.id for piece in whole.pieces]
    assert all(np.array_equal(a[:], b) for a, b in zip(again.codes, codes, strict=True))


def test_tokens_of_two_codecs_do_not_mix(pieces: Path, codec: Codec, tmp_path: Path) -> None:
    prepare.tokenise(codec, pieces, tmp_path, limit=1, quiet=True)
    torch.manual_seed(1)
    with pytest.raises(ValueError, match="another codec"):
        prepare.tokenise(Codec(nano()), pieces, tmp_path, limit=1, quiet=True)


def test_the_fingerprint_is_of_what_decides_tokens(codec: Codec) -> None:
    before = prepare.fingerprint(codec)
    louder = Codec(replace(codec.config, lift=(1.0,) * codec.books))
    louder.load_state_dict(codec.state_dict())
    assert prepare.fingerprint(louder) == before
    with torch.no_grad():
        codec.decoder.leave.bias[0] += 1
    assert prepare.fingerprint(codec) == before
    with torch.no_grad():
        codec.encoder.enter.bias[0] += 1
    assert prepare.fingerprint(codec) != before
    with torch.no_grad():
        codec.decoder.leave.bias[0] -= 1
        codec.encoder.enter.bias[0] -= 1


def test_packed_audio_holds_mixes_stems_and_recordings(pieces: Path, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "take.wav", np.random.default_rng(0).uniform(-0.1, 0.1, 16000), 16000)
    some = list(read_pieces(pieces))[:2]
    corpus = prepare.pack_audio(tmp_path / "out", some, [tmp_path / "take.wav"], quiet=True)
    kinds = [row["kind"] for row in corpus.index]
    assert kinds.count("mix") == 2 and kinds.count("real") == 1 and "stem" in kinds
    mix = mixdown(render_piece(some[0], 32000)).mean(0)
    torch.testing.assert_close(corpus.crop(0, len(mix)), mix, atol=1e-4, rtol=0)
