import pytest
import torch

from descant.eval.memorisation import SoundIndex, TokenIndex, fingerprints, rank
from descant.lm.vocab import GENRES
from descant.recipes import bench_control

RATE = 22_050


@pytest.fixture(scope="module")
def library():
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(0, 64, (4, 300), generator=generator) for _ in range(6)]


@pytest.fixture(scope="module")
def takes():
    return list(bench_control.takes("test", 1, 8.0, genres=GENRES[:8]))


def test_a_copied_run_is_found_where_it_lies(library):
    clip = torch.randint(0, 64, (4, 120), generator=torch.Generator().manual_seed(1))
    clip[:, 30:75] = library[4][:, 200:245]
    found = TokenIndex(library, n=6).find(clip)
    assert (found.start, found.item, found.item_start) == (30, 4, 200)
    assert 45 <= found.frames <= 47
    assert found.share == pytest.approx(40 / 115, abs=0.02)


def test_new_music_shares_nothing_and_copies_share_all(library):
    index = TokenIndex(library, n=5, books=2)
    fresh = index.find(torch.randint(0, 64, (4, 200), generator=torch.Generator().manual_seed(2)))
    assert (fresh.frames, fresh.share, fresh.item) == (0, 0, -1)
    copy = index.find(library[2])
    assert (copy.frames, copy.share, copy.item, copy.item_start) == (300, 1, 2, 0)


def test_all_books_asked_for_must_agree(library):
    clip = library[0].clone()
    clip[1] = (clip[1] + 1) % 64
    assert TokenIndex(library, n=6, books=1).find(clip).frames == 300
    assert TokenIndex(library, n=6, books=2).find(clip).frames == 0


def test_brute_force_agrees(library):
    few = [torch.randint(0, 3, (1, 60), generator=torch.Generator().manual_seed(i)) for i in range(3)]
    clip = torch.randint(0, 3, (1, 50), generator=torch.Generator().manual_seed(9))
    best = max(
        (next((k for k in range(50) if i + k >= 50 or j + k >= 60 or clip[0, i + k] != item[0, j + k]), 50), i)
        for item in few for i in range(50) for j in range(60)
    )  # fmt: skip
    found = TokenIndex(few, n=3).find(clip, limit=10_000)
    assert found.frames == best[0]


def test_short_clips_and_bad_arguments(library):
    assert TokenIndex(library, n=8).find(library[0][:, :5]).frames == 0
    with pytest.raises(ValueError, match="n is 0"):
        TokenIndex(library, n=0)
    with pytest.raises(ValueError, match="frames long"):
        TokenIndex([library[0][:, :3]], n=8)
    with pytest.raises(ValueError, match=r"\[K, F\]"):
        TokenIndex([library[0][0]])


def test_an_excerpt_is_recognised_through_noise_gain_and_time(takes):
    index = SoundIndex([(take.wav, RATE) for take in takes])
    wav = takes[5].wav
    noise = torch.randn(wav.shape, generator=torch.Generator().manual_seed(0)) * wav.std() * 0.1
    found = index.find((0.3 * wav + 0.3 * noise)[int(2.1 * RATE) : int(6.3 * RATE)], RATE)
    assert found.item == 5
    assert found.similarity > 0.8
    assert found.item_at - found.at == pytest.approx(2.1, abs=0.3)


def test_other_music_is_less_near(takes):
    index = SoundIndex([(take.wav, RATE) for take in takes[:6]])
    strangers = [index.find(take.wav, RATE).similarity for take in takes[6:]]
    own = index.find(takes[0].wav, RATE).similarity
    assert own > 0.99 > max(strangers) + 0.1
    assert rank(own, strangers) == 1
    assert rank(-1, strangers) == 0
    with pytest.raises(ValueError, match="held-out"):
        rank(0.5, [])


def test_fingerprints_are_unit_vectors_and_short_clips_have_none(takes):
    rows = fingerprints(takes[0].wav, RATE)
    assert rows.shape[0] == 11
    assert torch.allclose(rows.norm(dim=1), torch.ones(11), atol=1e-4)
    assert fingerprints(torch.zeros(RATE), RATE).shape[0] == 0
    assert torch.isfinite(fingerprints(torch.zeros(4 * RATE), RATE)).all()
    with pytest.raises(ValueError, match="3 s"):
        SoundIndex([(torch.zeros(RATE), RATE)])
