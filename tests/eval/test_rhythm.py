import librosa
import numpy as np
import pytest
import torch

from descant.eval.rhythm import TempoSettings, autocorrelation, onset_envelope, relation, tempo

RATE = 32_000


def groove(bpm, seconds=10.0, seed=0, offset=0.21, beats=4):
    """Kick on the first and third beat, snare on the others, quieter hats on eighths, over a steady chord and noise."""
    generator = torch.Generator().manual_seed(seed)
    wav = torch.zeros(int(seconds * RATE))
    time = torch.arange(RATE // 4) / RATE
    kick = torch.sin(2 * np.pi * 60 * time * torch.exp(-4 * time)) * torch.exp(-25 * time)
    snare = 0.6 * torch.randn(len(time), generator=generator) * torch.exp(-30 * time)
    hat = 0.15 * torch.randn(len(time), generator=generator) * torch.exp(-90 * time)
    step = 30 / bpm
    for index in range(int((seconds - offset) / step)):
        start = int((offset + index * step) * RATE)
        beat, half = divmod(index, 2)
        sound = hat if half else hat + (snare if beat % beats in (1, 3) else kick)
        end = min(len(wav), start + len(sound))
        wav[start:end] += sound[: end - start]
    tone = torch.arange(len(wav)) / RATE
    for hertz in (220.0, 277.2, 329.6):
        wav += 0.05 * torch.sin(2 * np.pi * hertz * tone)
    return wav + 0.003 * torch.randn(len(wav), generator=generator)


@pytest.mark.parametrize("bpm", [98, 112, 120, 133.3, 140, 155, 168])
def test_tempo_of_a_groove(bpm):
    found = tempo(groove(bpm), RATE)
    assert found.bpm == pytest.approx(bpm, rel=0.01)
    assert found.candidates[0] == (found.bpm, 1.0)
    assert found.strength > 0.5


@pytest.mark.parametrize("bpm", [62, 75, 84, 92.5, 180])
def test_a_slow_or_fast_groove_is_found_up_to_its_metrical_level(bpm):
    found = tempo(groove(bpm), RATE)
    assert relation(found.bpm, bpm) in ("exact", "double", "half")
    assert "exact" in {relation(candidate, bpm) for candidate, _ in found.candidates[:3]}


def test_candidates_are_distinct():
    values = [bpm for bpm, _ in tempo(groove(110), RATE).candidates]
    assert all(abs(a / b - 1) > 0.02 for i, a in enumerate(values) for b in values[:i])


@pytest.mark.parametrize("rate", [22_050, 44_100, 48_000])
def test_tempo_does_not_depend_on_rate_channels_or_level(rate):
    wav = torch.tensor(librosa.resample(groove(104).numpy(), orig_sr=RATE, target_sr=rate))
    assert tempo(wav, rate).bpm == pytest.approx(104, rel=0.01)
    assert tempo(0.01 * wav.repeat(2, 1), rate).bpm == pytest.approx(tempo(wav, rate).bpm, rel=1e-3)


def test_tempo_beats_librosa_on_a_spread_of_tempi():
    tempi = np.linspace(98, 172, 10)
    waves = [groove(bpm, seed=i) for i, bpm in enumerate(tempi)]
    ours = [relation(tempo(wav, RATE).bpm, bpm) for wav, bpm in zip(waves, tempi, strict=True)]
    peer = [
        relation(float(librosa.feature.tempo(y=wav.numpy(), sr=RATE)[0]), bpm)
        for wav, bpm in zip(waves, tempi, strict=True)
    ]
    assert ours.count("exact") >= 9
    assert ours.count("exact") >= peer.count("exact")


def test_metrical_multiples_are_among_the_candidates():
    found = tempo(groove(100), RATE)
    assert {relation(bpm, 100) for bpm, _ in found.candidates} & {"double", "half"}
    assert all(0 < weight <= 1 for _, weight in found.candidates)


def test_prior_moves_the_choice():
    slow = tempo(groove(120), RATE, TempoSettings(centre=60, spread=0.2))
    assert relation(slow.bpm, 120) == "half"


def test_onsets_are_where_librosa_finds_them():
    wav = groove(96)
    flux = onset_envelope(wav, RATE)
    theirs = librosa.onset.onset_detect(y=wav.numpy(), sr=RATE, units="time", backtrack=False)
    peaks = [t for t in theirs if flux[max(0, int(t * 200) - 10) : int(t * 200) + 11].max() > 1]
    assert len(peaks) >= 0.9 * len(theirs) > 10
    assert abs(float(flux.mean())) < 1e-3
    assert float(flux.std()) == pytest.approx(1, abs=1e-3)


def test_autocorrelation_of_a_pulse_train():
    train = torch.zeros(2000)
    train[::50] = 1
    train -= train.mean()
    value = autocorrelation(train)
    assert float(value[0]) == pytest.approx(1)
    assert float(value[50]) == pytest.approx(1, abs=0.05)
    assert float(value[25]) < 0.1


def test_silence_noise_and_short_clips_do_not_fail():
    assert tempo(torch.zeros(RATE * 5), RATE).bpm == 0
    assert tempo(torch.zeros(100), RATE).candidates == ()
    noise = tempo(torch.randn(RATE * 6, generator=torch.Generator().manual_seed(0)), RATE)
    assert noise.strength < 0.3


@pytest.mark.parametrize(
    ("estimate", "name"),
    [(100, "exact"), (103.9, "exact"), (105, "other"), (200, "double"), (50, "half"), (300, "triple"),
     (33.4, "third"), (150, "3/2"), (67, "2/3"), (125, "other"), (0, "other")],
)  # fmt: skip
def test_relation(estimate, name):
    assert relation(estimate, 100) == name


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match="low < centre"):
        TempoSettings(low=100, centre=90)
    with pytest.raises(ValueError, match="spread"):
        TempoSettings(spread=0)
    with pytest.raises(ValueError, match="true tempo"):
        relation(100, 0)
