"""What the codec report scores: Opus and MP3 aligned at real bytes, codecs at the bytes of their files, controls."""

import io
import math

import numpy as np
import pytest
import scipy.signal
import soundfile
import torch

from descant.codec import audio, bitstream, build, files
from descant.codec.entropy import Adaptive
from descant.codec.model import Codec, CodecConfig, nano
from descant.codec.pretrained import save
from descant.eval.reconstruction import delay, mel_distance, si_sdr, side_error
from descant.recipes import bench_codec_systems as systems
from descant.recipes.bench_codec_classical import mp3, mp3_file, opus, opus_file
from descant.recipes.bench_codec_clips import choose, credit, digest_of, recordings
from descant.recipes.real import Row, write_manifest

RATE = 32_000


def music(seconds=3.0, channels=1, seed=0):
    time = torch.arange(int(seconds * RATE)) / RATE
    generator = torch.Generator().manual_seed(seed)
    out = []
    for channel in range(channels):
        wave = sum(0.1 * torch.sin(2 * math.pi * f * (1 + 0.1 * channel) * time) for f in (220, 440, 1760, 5000))
        hits = torch.exp(-20 * (time % 0.25)) * 0.3 * torch.randn(len(time), generator=generator)
        out.append(wave * (1 + 0.5 * torch.sin(2 * math.pi * 3 * time)) + hits)
    return 0.5 * torch.stack(out)


@pytest.fixture(scope="module")
def nano_folder(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("codecs") / "mine"
    save(Codec(nano()).eval(), folder)
    return folder


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """Recordings laid out as 'descant prepare real' does."""
    root = tmp_path_factory.mktemp("real")
    rows = []
    lengths = {"a": 7.0, "b": 5.0, "c": 2.5}
    for number, (name, seconds) in enumerate(lengths.items()):
        (root / "test").mkdir(exist_ok=True)
        audio.write(root / "test" / f"{name}.flac", audio.Audio(music(seconds, seed=number), RATE))
        rows.append(
            Row(path=f"test/{name}.flac", split="test", stem="mix", seconds=seconds, licence="CC-BY-4.0",
                author="A. Musician", title=f"Piece {name}", package="own", version="", source=f"{name}.ogg",
                evidence="stated")
        )  # fmt: skip
    audio.write(root / "test" / "a__guitar.flac", audio.Audio(music(7.0), RATE))
    rows.append(Row(**{**vars(rows[0]), "path": "test/a__guitar.flac", "stem": "guitar"}))
    (root / "train").mkdir()
    audio.write(root / "train" / "t.flac", audio.Audio(music(3.0), RATE))
    rows.append(Row(**{**vars(rows[0]), "path": "train/t.flac", "split": "train"}))
    write_manifest(root, rows, RATE)
    return root


@pytest.mark.parametrize("kbps", [24, 32, 48, 64, 128])
def test_mp3_comes_back_aligned_and_at_its_level(kbps):
    wav = music()
    heard = mp3(wav, RATE, kbps)
    assert heard.wav.shape == wav.shape
    assert delay(wav, heard.wav, 3000) == 0
    assert si_sdr(wav, heard.wav) > 4
    # constant rate: the nominal one, and a few frames for the encoder's delay and its tag
    assert 8 * heard.size / 3 / 1000 == pytest.approx(kbps, rel=0.06)


def test_the_mp3_encoder_turns_everything_down_and_we_up_again():
    tones = sum(0.1 * torch.sin(2 * math.pi * f * torch.arange(2 * RATE) / RATE) for f in (300, 1000, 2500))[None]
    for kbps in (32, 64, 128):
        heard = mp3(tones, RATE, kbps)
        assert -1 < heard.gain < -0.2
        middle = slice(RATE // 2, -RATE // 2)
        assert float(heard.wav[0, middle].norm() / tones[0, middle].norm()) == pytest.approx(1, abs=0.01)


def test_mp3_of_low_rates_is_late_and_the_delay_is_told():
    wav = music()
    heard = mp3(wav, RATE, 24)
    back, rate = soundfile.read(io.BytesIO(mp3_file(audio.resample(wav, RATE, 24_000), 24_000, 24)), dtype="float32")
    given = audio.resample(wav, RATE, 24_000)[0].numpy()
    found = int(scipy.signal.correlate(back, given).argmax()) - (len(given) - 1)
    assert rate == 24_000
    assert heard.delay == found != 0


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("kbps", [8, 12, 16, 32])
def test_opus_comes_back_aligned_in_every_mode(kbps, channels):
    wav = music(channels=channels)
    heard = opus(wav, RATE, kbps * channels)
    assert heard.wav.shape == wav.shape
    assert delay(wav, heard.wav, 100) == 0
    assert heard.size == len(opus_file(wav, RATE, kbps * channels))
    assert 0.6 * kbps * channels < 8 * heard.size / 3 / 1000 < 2 * kbps * channels


def test_rates_that_formats_lack_are_refused():
    with pytest.raises(ValueError, match="6 to 256"):
        opus(music(1.0, 2), RATE, 8)
    with pytest.raises(ValueError, match="32 to 320"):
        mp3_file(music(1.0), RATE, 24)
    with pytest.raises(ValueError, match="3 channels"):
        mp3_file(music(1.0, 3), RATE, 64)


def test_a_codec_is_charged_for_the_whole_file(nano_folder):
    codec = systems.loaded(str(nano_folder))
    wav = music(2.0)
    heard = systems.neural(codec, wav, RATE, 4)
    codes = codec.encode(wav[None], 4)
    assert heard.bits == codes.numel() * 6
    data = systems.file_of(codec, codes, wav.shape[-1])
    assert heard.size == len(data) > heard.bits / 8
    read = bitstream.Reader(io.BytesIO(data))
    assert torch.equal(torch.cat([chunk.codes for chunk in read], dim=-1), codes[0])
    assert torch.equal(heard.wav, codec.decode(codes)[0, :, : wav.shape[-1]])


def test_ours_are_scored_as_their_files_decode(nano_folder, tmp_path):
    codec = systems.loaded(str(nano_folder))
    wav = torch.cat([0.01 * music(2.0), music(1.5)], dim=-1)  # so quiet that the file carries a gain
    heard = systems.through_file(codec, wav, RATE, 4)
    soundfile.write(tmp_path / "in.wav", wav.T.numpy(), RATE, subtype="FLOAT")
    files.encode_file(tmp_path / "in.wav", tmp_path / "a.dsc", codec, books=4)
    files.decode_file(tmp_path / "a.dsc", tmp_path / "out.wav", codec)
    assert heard.size == (tmp_path / "a.dsc").stat().st_size
    assert torch.allclose(heard.wav.clamp(-1, 1), audio.read(tmp_path / "out.wav").wav, atol=1e-5)
    assert heard.bits == 4 * 6 * math.ceil(wav.shape[-1] / 640)
    assert heard.coded is None and systems.tables_of(str(nano_folder)) is None
    row = systems.systems({"mine": str(nano_folder)}, {}, RATE, 1)[2]
    assert row.books == 4
    assert torch.equal(row.apply(wav, RATE).wav, heard.wav)


def test_entropy_coding_is_told_beside_the_packed_file(nano_folder):
    codec = systems.loaded(str(nano_folder))
    wav = 0.3 * torch.sin(2 * math.pi * 440 * torch.arange(10 * RATE) / RATE)[None]

    class Repeats(Adaptive):
        """Tables that a test need not train."""

    heard = systems.through_file(codec, wav, RATE, 8, Repeats())
    assert heard.coded < heard.size
    codes = codec.encode(wav[None])
    data = systems.file_of(codec, codes, wav.shape[-1])
    smaller = systems.recoded(data, Repeats())
    assert len(smaller) < len(data)
    assert torch.equal(torch.cat([chunk.codes for chunk in bitstream.Reader(io.BytesIO(smaller))], dim=-1), codes[0])


def test_a_codec_of_another_rate_is_scored_at_the_rate_of_the_clip(nano_folder):
    codec = systems.loaded(str(nano_folder))
    wav = audio.resample(music(2.0), RATE, 44_100)
    heard = systems.neural(codec, wav, 44_100, 8)
    assert heard.wav.shape == wav.shape
    assert systems.codes_of(codec, wav, 44_100).shape == (8, 100)


def test_stereo_through_a_mono_codec_has_no_side(nano_folder):
    wav = music(1.0, 2)
    heard = systems.neural(systems.loaded(str(nano_folder)), wav, RATE, 8)
    assert heard.wav.shape == wav.shape
    assert side_error(wav, heard.wav) > 20


def test_codecs_that_normalise_segments_are_charged_for_their_scales():
    from descant.codec.contract import Segment

    class Segmented:
        rate, channels, hop, books, cardinality, frame_rate = RATE, 1, 320, 4, 1024, 100.0

        def segments(self, wav, books=None):
            return [Segment(torch.full((1, books or 4, 50), index), torch.ones(1)) for index in range(3)]

        def from_segments(self, segments, length):
            return torch.full((1, 1, length), float(len(segments)))

    heard = systems.neural(Segmented(), music(1.5), RATE, 2)
    assert heard.bits == 3 * (2 * 50 * 10 + 32)
    assert heard.size == math.ceil(heard.bits / 8)
    assert bool((heard.wav == 3).all())
    assert systems.codes_of(Segmented(), music(1.5), RATE).shape == (4, 150)


def test_a_peer_of_another_architecture_is_run_as_published():
    torch.manual_seed(0)
    codec = build("encodec24").eval()
    wav = music(1.0)
    heard = systems.neural(codec, wav, RATE, 4)
    given = audio.resample(wav, RATE, 24_000)[None]
    codes = codec.encode(given, 4)
    assert heard.size == len(systems.file_of(codec, codes, 24_000))
    back = codec.decode(codes)[0, :, :24_000]
    assert torch.allclose(heard.wav, audio.resample(back, 24_000, RATE)[:, :RATE], atol=1e-6)


def test_rows_of_the_report(nano_folder):
    rows = systems.systems({"mine": str(nano_folder)}, {"theirs": str(nano_folder)}, RATE, 1)
    assert [row.books for row in rows[:5]] == [1, 2, 4, 6, 8]
    assert [row.ours for row in rows[:10]] == [True] * 5 + [False] * 5
    assert {row.kind for row in rows} == {"codec", "opus", "mp3", "control"}
    assert len({row.name for row in rows}) == len(rows)
    names = [row.name for row in systems.systems({}, {}, 16_000, 1)]
    assert "low-pass 3.5 kHz" in names and "low-pass 8 kHz" not in names
    stereo = systems.systems({}, {}, RATE, 2)
    assert [row.kbps for row in stereo if row.kind == "opus"] == [2.0 * rate for rate in systems.OPUS_RATES]


def test_marks_tell_weights_apart(nano_folder, tmp_path):
    torch.manual_seed(1)
    save(Codec(nano()).eval(), tmp_path / "other")
    one, other = (systems.codec_mark(systems.loaded(str(folder))) for folder in (nano_folder, tmp_path / "other"))
    assert one != other
    assert one == systems.codec_mark(systems.load(str(nano_folder)))


def test_a_stereo_codec_is_not_scored_on_mono(tmp_path):
    torch.manual_seed(0)
    save(Codec(CodecConfig(**{**nano().to_dict(), "channels": 2})).eval(), tmp_path / "wide")
    with pytest.raises(ValueError, match="channels=2"):
        systems.systems({"wide": str(tmp_path / "wide")}, {}, RATE, 1)
    assert (
        systems.systems({"wide": str(tmp_path / "wide")}, {}, RATE, 2)[0].apply(music(1.0, 2), RATE).wav.shape[0] == 2
    )


def test_controls_do_what_they_are_called():
    wav = music()
    heard = {name: control(wav, RATE) for name, control in systems.CONTROLS.items()}
    assert all(one.shape == wav.shape for one in heard.values())
    assert torch.equal(heard["identity"], wav)
    assert torch.equal(heard["polarity flipped"], -wav)
    assert 20 * math.log10(float(heard["6 dB softer"].norm() / wav.norm())) == pytest.approx(-6.02, abs=0.01)
    assert si_sdr(wav, heard["random phase"]) < -10
    # as loud in every band over time as before, more or less
    assert mel_distance(wav, heard["random phase"], RATE) < 0.4 * mel_distance(wav, torch.zeros_like(wav), RATE)
    for cut in (3.5, 8, 12):
        frequencies, power = scipy.signal.welch(heard[f"low-pass {cut:g} kHz"][0].numpy(), RATE, nperseg=4096)
        _, before = scipy.signal.welch(wav[0].numpy(), RATE, nperseg=4096)
        below, above = frequencies < 1000 * cut - 250, frequencies > 1000 * cut + 100
        assert np.allclose(power[below], before[below], rtol=0.02)
        assert power[above].max() < 1e-6 * before.max()


def test_excerpts_are_spread_never_overlap_and_grow_without_changing(real):
    clips = choose([str(real / "test")], 10, 1.0, RATE, 1)
    assert len(clips) == 10
    assert len({(clip.recording, clip.start) for clip in clips}) == len({clip.digest for clip in clips}) == 10
    assert {clip.recording for clip in clips[:3]} == {"a", "b", "c"}
    assert all(clip.start == int(clip.start) for clip in clips)  # slots of a second: disjoint
    assert choose([str(real / "test")], 4, 1.0, RATE, 1) == clips[:4]
    assert len(choose([str(real / "test")], 100, 1.0, RATE, 1)) == 7 + 5 + 2
    first = next(clip for clip in clips if clip.recording == "a")
    assert first.start == 3.0  # the middle one
    assert torch.equal(first.read(), audio.read(real / "test" / "a.flac", RATE, 1, 3.0, 1.0).wav)
    assert digest_of(first.read()) == first.digest


def test_parts_and_training_recordings_are_kept_out(real, tmp_path):
    assert {path.stem for path in recordings([str(real / "test")])} == {"a", "b", "c"}
    with pytest.raises(ValueError, match="train split"):
        recordings([str(real)])
    link = tmp_path / "links"
    link.mkdir()
    (link / "song.flac").symlink_to(real / "test" / "a.flac")
    assert credit(link / "song.flac").author == "A. Musician"
    (link / "leak.flac").symlink_to(real / "train" / "t.flac")
    with pytest.raises(ValueError, match="train split"):
        choose([str(link)], 1, 1.0, RATE, 1)


def test_silence_and_mono_are_passed_over(tmp_path):
    loud, quiet = music(2.0), torch.zeros(1, 2 * RATE)
    audio.write(tmp_path / "x.flac", audio.Audio(torch.cat([quiet, loud, quiet], dim=-1), RATE))
    assert sorted(clip.start for clip in choose([str(tmp_path)], 9, 1.0, RATE, 1)) == [2.0, 3.0]
    with pytest.raises(ValueError, match="are mono"):
        choose([str(tmp_path)], 1, 1.0, RATE, 2)
    twice = torch.cat([loud, loud])
    audio.write(tmp_path / "y.flac", audio.Audio(torch.cat([twice, music(2.0, 2)], dim=-1), RATE))
    assert sorted(clip.start for clip in choose([str(tmp_path)], 9, 1.0, RATE, 2)) == [2.0, 3.0]
    with pytest.raises(ValueError, match="no folder"):
        recordings([str(tmp_path / "missing")])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no recordings"):
        recordings([str(tmp_path / "empty")])
    with pytest.raises(ValueError, match="nothing to hear"):
        choose([str(tmp_path)], 1, 60.0, RATE, 1)


def test_a_recording_that_changes_meanwhile_is_noticed(tmp_path):
    from descant.recipes import bench_codec_clips

    audio.write(tmp_path / "x.flac", audio.Audio(music(1.0), RATE))
    clip = choose([str(tmp_path)], 1, 1.0, RATE, 1)[0]
    audio.write(tmp_path / "x.flac", audio.Audio(0.5 * music(1.0), RATE))
    bench_codec_clips._read.cache_clear()
    with pytest.raises(ValueError, match="changed"):
        clip.read()
