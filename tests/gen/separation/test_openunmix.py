"""Open-Unmix: the network, the filter and whole songs beside the openunmix package; the filter beside norbert, too."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import norbert
import pytest
import torch
from torch import Tensor

from descant.gen.separation import registry
from descant.gen.separation.contract import Layout
from descant.gen.separation.openunmix import OpenUnmix, OpenUnmixConfig
from descant.gen.separation.openunmix_files import PUBLISHED, is_folder, load, named, save
from descant.gen.separation.openunmix_filter import FilterSettings, wiener
from descant.gen.separation.openunmix_separator import OpenUnmixSeparator, OpenUnmixSettings

from .made import openunmix, sound

NAMES = ("vocals", "drums", "bass", "other")


@pytest.fixture(scope="module")
def package() -> Iterator[SimpleNamespace]:
    """The package's own modules; it imports torchaudio, which these do not use."""
    had = sys.modules.get("torchaudio")
    sys.modules["torchaudio"] = had or ModuleType("torchaudio")
    from openunmix import filtering, model

    yield SimpleNamespace(model=model, filtering=filtering)
    if had is None:
        del sys.modules["torchaudio"]


def theirs(package: Any, seed: int = 0, **sizes: Any) -> Any:
    torch.manual_seed(seed)
    network = package.model.OpenUnmix(**{"nb_bins": 129, "nb_channels": 2, "hidden_size": 16, "max_bin": 100, **sizes})
    for norm in (network.bn1, network.bn2, network.bn3):
        norm.running_mean.normal_(0, 0.3)
        norm.running_var.uniform_(0.5, 2)
    with torch.no_grad():
        network.input_mean.normal_(0, 0.1)
        network.output_mean.uniform_(-0.2, 1)
    return network.eval()


def largest(wav: Tensor) -> float:
    return float(wav.detach().abs().max())


@pytest.mark.parametrize(
    "sizes", [{}, {"nb_layers": 1}, {"unidirectional": True}, {"nb_channels": 1}, {"max_bin": None}], ids=str
)
def test_the_network_is_theirs(package: Any, sizes: dict[str, Any], tmp_path: Path) -> None:
    network = theirs(package, **sizes)
    torch.save(network.state_dict(), tmp_path / "vocals-0123abcd.pth")
    method = registry.get(tmp_path / "vocals-0123abcd.pth")
    assert isinstance(method, OpenUnmixSeparator) and method.stems == ("vocals",)
    heard = torch.rand(2, sizes.get("nb_channels", 2), 129, 30)
    with torch.no_grad():
        want = network(heard)
        assert largest(method.networks["vocals"](heard) - want) <= 1e-5 * largest(want)
    assert largest(want) > 0.1


def spectra(seconds: float = 1.5) -> tuple[Tensor, Tensor]:
    """Magnitudes of four stems, [4, 2, K, F], and a mixture [2, K, F]; 375 frames."""
    window = torch.hann_window(256)
    stems = torch.stack([sound(seconds, 16000, 2, seed) * (1 + seed) for seed in range(4)])
    spec = torch.stft(stems.flatten(0, 1), 256, 64, window=window, return_complex=True).unflatten(0, (4, 2))
    return spec.abs() * torch.rand(spec.shape, generator=torch.Generator().manual_seed(1)), spec.sum(0)


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("shares", [False, True])
@pytest.mark.parametrize("iterations", [0, 1, 2])
def test_the_filter_is_theirs(package: Any, iterations: int, shares: bool, residual: bool) -> None:
    magnitudes, mix = spectra()
    # in double precision: with single, theirs loses digits where a mixture is nearly mono
    magnitudes, mix = magnitudes.double(), mix.to(torch.complex128)
    parts = [
        package.filtering.wiener(
            magnitudes[..., part].permute(3, 2, 1, 0), torch.view_as_real(mix[..., part].permute(2, 1, 0).contiguous()),
            iterations, softmask=shares, residual=residual,
        ) for part in (slice(0, 300), slice(300, None))
    ]  # fmt: skip
    want = torch.view_as_complex(torch.cat(parts).permute(4, 2, 1, 0, 3).contiguous())
    settings = FilterSettings(iterations=iterations, residual=residual, shares=shares)
    made = wiener(magnitudes, mix, settings)
    assert made.shape == want.shape == (4 + residual, *mix.shape)
    assert largest(made - want) <= 1e-7 * largest(mix)  # its arc tangent has a pi of single precision
    # stems that are asked for, in the precision that the networks have
    some = wiener(magnitudes.float(), mix.to(torch.complex64), settings, [2, 0])
    assert largest(some - want[[2, 0]]) <= 1e-5 * largest(mix)


@pytest.mark.parametrize("channels", [1, 2])
def test_the_filter_is_norberts(channels: int) -> None:
    magnitudes, mix = spectra(0.5)
    magnitudes, mix = magnitudes[:, :channels].double(), mix[:channels].to(torch.complex128)
    floor = float(torch.finfo(torch.float64).eps)  # norbert's own
    given = magnitudes.permute(3, 2, 1, 0).numpy().copy(), mix.permute(2, 1, 0).numpy().copy()  # it scales in place
    want = norbert.wiener(*given, 1, use_softmask=False)
    made = wiener(magnitudes, mix, FilterSettings(floor=floor))
    assert largest(made - torch.from_numpy(want).permute(3, 2, 1, 0)) <= 1e-6 * largest(mix)
    # what the filter is for: stems of the model add up to the mixture
    assert largest(made.sum(0) - mix) <= 1e-2 * largest(mix)


def test_a_mono_mixture_stays_mono() -> None:
    magnitudes, mix = spectra(0.5)
    made = wiener(magnitudes[:, :1].expand(-1, 2, -1, -1), mix[:1].expand(2, -1, -1))
    assert largest(made[:, 0] - made[:, 1]) <= 1e-5 * largest(mix)
    assert largest(made.sum(0) - mix[:1]) <= 1e-2 * largest(mix)


@pytest.mark.parametrize(("iterations", "residual"), [(1, False), (1, True), (0, False)])
def test_a_whole_song_is_theirs(package: Any, iterations: int, residual: bool, tmp_path: Path) -> None:
    networks = {name: theirs(package, seed) for seed, name in enumerate(NAMES)}
    for name, network in networks.items():
        torch.save({**network.state_dict(), "stft.window": torch.ones(256)}, tmp_path / f"{name}.pth")
    (tmp_path / "separator.json").write_text('{"sample_rate": 16000, "nfft": 256, "nhop": 64, "nb_channels": 2}')
    assert is_folder(tmp_path)
    found = registry.get(tmp_path)
    assert isinstance(found, OpenUnmixSeparator) and found.stems == NAMES and found.rate == 16000
    own = package.model.Separator(networks, iterations, False, residual, 16000.0, 256, 64, 2).eval()
    # windows of 300 frames and a rest
    wav = sound(1.7, 16000)
    with torch.no_grad():
        want = own(wav[None])[0]
    settings = FilterSettings(iterations=iterations, residual=residual)
    method = OpenUnmixSeparator(
        dict(found.networks.items()), OpenUnmixSettings(rate=16000, hop=64, filter=settings, level=None),  # type: ignore[arg-type]
        Layout(chunk=2.0, before=0, after=0, fade=0),
    )  # fmt: skip
    made = method.separate(wav, 16000)
    assert largest(made.stacked - want[:4]) <= 1e-5
    if residual:
        assert largest(made.residual - want[4]) <= 2e-3  # theirs leaves out the filter's white noise
    assert largest(want) > 0.05
    one = method.separate(wav, 16000, stems="bass")
    assert largest(one["bass"] - want[2]) <= 1e-5


def test_only_what_is_wanted_runs_without_the_filter() -> None:
    method = openunmix(count=3)
    ran = []
    for name, network in method.networks.items():
        network.register_forward_hook(lambda *_, name=name: ran.append(name))
    method.separate(sound(0.3, 16000), 16000, stems="drums")
    assert set(ran) == {"vocals", "drums", "bass"}  # the filter weighs all
    plain = OpenUnmixSettings(rate=16000, hop=64, filter=FilterSettings(iterations=0))
    method.settings = plain
    ran.clear()
    method.separate(sound(0.3, 16000), 16000, stems="drums")
    assert set(ran) == {"drums"}


def test_a_layout_of_its_own_holds_whole_stretches() -> None:
    layout = OpenUnmixSeparator({"bass": OpenUnmix(OpenUnmixConfig(hidden=4))}).layout
    seconds = layout.before + layout.chunk + layout.fade + layout.after
    assert math.isclose(seconds * 44100 / 1024, 599, abs_tol=1e-6)  # 600 frames, two stretches


def test_it_learns() -> None:
    torch.manual_seed(0)
    network = OpenUnmix(OpenUnmixConfig(bins=65, kept=50, hidden=16, layers=1)).train()
    heard = torch.rand(4, 2, 65, 20)
    target = heard * (torch.arange(65) < 20)[:, None]
    steps = torch.optim.Adam(network.parameters(), 3e-3)
    losses = []
    for _ in range(40):
        loss = (network(heard) - target).square().mean()
        steps.zero_grad()
        loss.backward()
        steps.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]
    assert all(value.grad is not None and bool(value.grad.any()) for value in network.parameters())


def test_what_is_saved_is_read(tmp_path: Path) -> None:
    method = openunmix(count=2)
    folder = save(method, tmp_path / "mine")
    assert not list(folder.glob("*.part"))
    found = registry.get(folder)
    assert isinstance(found, OpenUnmixSeparator) and found.stems == method.stems
    assert (found.rate, found.grain, found.window) == (16000, 64, 256)
    found.layout = method.layout
    wav = sound(0.4, 16000)
    assert torch.equal(found.separate(wav, 16000).stacked, method.separate(wav, 16000).stacked)


def test_damaged_weights_are_told_apart(tmp_path: Path, package: Any) -> None:
    state = theirs(package).state_dict()
    for change, said in [
        ({"fc1.weight": None}, "fc1.weight is missing"),
        ({"fc2.weight": None}, "no network of Open-Unmix"),
        ({"fc2.weight": torch.zeros(3, 3)}, "no network of Open-Unmix"),
        ({"input_mean": torch.zeros(1)}, "no network of Open-Unmix"),
        ({"bn1.bias": torch.full((16,), torch.nan)}, "not finite"),
    ]:
        held = {key: value for key, value in {**state, **change}.items() if value is not None}
        torch.save(held, tmp_path / "vocals.pth")
        with pytest.raises(ValueError, match=said):
            load(tmp_path)
    torch.save(state, tmp_path / "vocals.pth")
    torch.save(state, tmp_path / "vocals-01234567.pth")
    with pytest.raises(ValueError, match="keep one of each"):
        load(tmp_path)
    (tmp_path / "vocals.pth").unlink()
    (tmp_path / "separator.json").write_text(json.dumps({"sample_rate": 44100}))
    with pytest.raises(ValueError, match="no sample_rate and nhop"):
        load(tmp_path)
    with pytest.raises(ValueError, match="holds no weights"):
        load(tmp_path.parent)


def test_published_names_are_looked_up_in_the_cache(
    tmp_path: Path, package: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(ValueError, match=r"umxhq wants vocals-b62c91ce.pth, .*record 3370489"):
        registry.get("umxhq")
    (tmp_path / "checkpoints").mkdir()
    for number, stem in enumerate(PUBLISHED["umxhq"][1]):
        torch.save(theirs(package, number).state_dict(), tmp_path / "checkpoints" / f"{stem}.pth")
    assert named("umxhq").stems == NAMES and named("umxhq").rate == 44100
    assert set(PUBLISHED) <= set(registry.OUTSIDE)


def test_networks_must_fit_together() -> None:
    one, other = OpenUnmix(OpenUnmixConfig(bins=65, kept=9, hidden=4)), OpenUnmix(OpenUnmixConfig(hidden=4))
    for networks, settings, said in [
        ({}, None, "none"),
        ({"a": one, "b": other}, None, "same bins"),
        ({"a": one}, OpenUnmixSettings(hop=1024), "half the window"),
    ]:
        with pytest.raises(ValueError, match=said):
            OpenUnmixSeparator(networks, settings)
    with pytest.raises(ValueError, match="even"):
        OpenUnmixConfig(hidden=5)
    with pytest.raises(ValueError, match="kept"):
        OpenUnmixConfig(kept=3000)
    with pytest.raises(ValueError, match="iterations"):
        FilterSettings(iterations=-1)
    with pytest.raises(ValueError, match="level"):
        OpenUnmixSettings(level=0.0)
    with pytest.raises(ValueError, match=r"magnitudes \[N, C, K, F\]"):
        wiener(torch.rand(2, 3, 5, 7), torch.rand(3, 5, 7, dtype=torch.complex64))
