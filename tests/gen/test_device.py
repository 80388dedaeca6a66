"""Where models compute. Without a GPU, what is moved goes to torch's ``meta`` device, which holds no numbers."""

import pytest
import torch

from descant.codec.contract import Codec
from descant.codec.model import Codec as Own
from descant.codec.model import nano
from descant.gen.cli import main
from descant.gen.device import Elsewhere, device_of, moved_codec, moved_lm, moved_musicgen
from descant.gen.load import Studio, load
from descant.gen.musicgen import MusicGenStudio
from descant.lm.fast_graph_musicgen import GraphMusicGen
from descant.lm.fast_graph_token import GraphTokenLM
from descant.lm.musicgen import MusicGenLM
from descant.lm.musicgen_config import MusicGenConfig

CPU, AWAY = torch.device("cpu"), torch.device("meta")


def test_devices_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert device_of("cpu", "int8") == CPU
    for name in ("gpu", "tpu", "mps", "", "cuda:-1"):
        with pytest.raises(ValueError, match=f"device '{name}'"):
            device_of(name)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="sees no CUDA device"):
        device_of("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert device_of("cuda:1", "bf16") == torch.device("cuda:1")
    with pytest.raises(ValueError, match=r"sees 2 CUDA device\(s\)"):
        device_of("cuda:2")
    with pytest.raises(ValueError, match="choose bf16"):
        device_of("cuda", "int8")


def test_on_a_gpu_the_recorded_step_decodes(model_folder) -> None:
    studio = load(model_folder, precision="bf16")
    away = Studio(studio.codec, moved_lm(studio.lm, AWAY), "x", 1, "bf16")
    assert isinstance(away.engine, GraphTokenLM) and away.engine.dtype == torch.bfloat16
    assert away.lm.embed.weight.dtype == torch.float32
    lm = MusicGenLM(MusicGenConfig(width=32, layers=1, heads=2, ffn=32))
    assert moved_musicgen(lm, CPU, "bf16").norm.weight.dtype == torch.float32
    lm = moved_musicgen(lm, AWAY, "bf16")
    assert lm.heads.weight.device == AWAY and lm.heads.weight.dtype == torch.bfloat16
    made = object.__new__(MusicGenStudio)
    object.__setattr__(made, "lm", lm)
    assert isinstance(made.engine, GraphMusicGen)


def test_a_codec_elsewhere_is_a_codec() -> None:
    torch.manual_seed(0)
    codec = Own(nano()).eval()
    assert moved_codec(codec, CPU) is codec
    away = Elsewhere(codec, CPU)
    assert isinstance(away, Codec) and away.rate == codec.rate and away.fingerprint == codec.fingerprint
    wav = torch.randn(1, codec.channels, 5 * codec.hop)
    codes = away.encode(wav, 2)
    assert torch.equal(codes, codec.encode(wav, 2)) and torch.equal(away.decode(codes), codec.decode(codes))
    assert torch.equal(away.decode_latent(codes), codec.decode_latent(codes))
    stream = away.decoder_stream()
    assert torch.allclose(torch.cat([stream.push(codes), stream.finish()], -1), codec.decode(codes), atol=1e-5)
    assert torch.equal(away.encoder_stream(2).push(wav), codec.encoder_stream(2).push(wav))
    with pytest.raises(AttributeError):
        away.nonsense  # noqa: B018


def test_what_a_codec_elsewhere_is_given_goes_there() -> None:
    away = moved_codec(Own(nano()).eval(), AWAY)
    assert next(away.parameters()).device == AWAY  # type: ignore[attr-defined]
    with pytest.raises(RuntimeError, match="meta"):
        away.decode_latent(torch.zeros(1, 2, 3, dtype=torch.long))


@pytest.mark.parametrize("command", [["generate", "slow blues"], ["extend", __file__]])
def test_the_command_line_says_it_in_one_line(command, monkeypatch, capsys, tmp_path) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main([*command, "--device", "cuda", "-o", str(tmp_path / "x.wav")]) == 1
    told = capsys.readouterr().err.strip().splitlines()
    assert len(told) == 1 and ("sees no CUDA device" in told[0] or "test_device.py" in told[0])


def test_a_full_device_says_what_to_lower(model_folder, monkeypatch) -> None:
    studio = load(model_folder)

    def full(_: torch.Tensor) -> torch.Tensor:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB.")

    monkeypatch.setattr(studio.codec, "decode", full)
    with pytest.raises(RuntimeError, match="no memory for this music on cpu: ask for a shorter duration") as told:
        studio.generate("slow blues", duration=0.2)
    assert "\n" not in str(told.value)
