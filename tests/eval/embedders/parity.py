"""Foreign judges against their authors' code, with random weights of the published sizes; no test, no weights needed.

    pip download --no-deps --dest wheels hear21passt panns_inference torchlibrosa torchvggish laion_clap
    (cd wheels && for file in *.whl; do unzip -qo "$file"; done; tar xzf torchvggish-*.tar.gz)
    python tests/eval/embedders/parity.py wheels

prints the table of docs/eval-judges.md. What the authors' packages import beside torch is stood in for: torchaudio's
Kaldi bank by transformers', the rest (timm's downloads, torchvision, h5py, resampy) is never called.
"""

import contextlib
import importlib
import io
import sys
import tempfile
import types
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional
from transformers import ClapFeatureExtractor, RobertaConfig, RobertaModel
from transformers.audio_utils import mel_filter_bank

from descant.eval.embedders import load

ROWS = 2


def stand_in(name, **content):
    """A module that is only a name, with the given content."""
    module = types.ModuleType(name)
    module.__dict__.update(content)
    sys.modules[name] = module
    return module


def kaldi(bands, n_fft, rate, low, high, **_):
    """What torchaudio.compliance.kaldi.get_mel_banks returns, without the last bin."""
    bank = mel_filter_bank(n_fft // 2 + 1, bands, low, high, rate, mel_scale="kaldi", triangularize_in_mel_space=True)
    return torch.from_numpy(bank.T.copy()).float()[:, :-1], None


def quietly(function, *args, **kwargs):
    """Call what prints as it goes."""
    with contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
        return function(*args, **kwargs)


def lively(net, gain):
    """Weights at which no part of a network is idle; a spectrogram's constants stay."""
    for name, value in net.named_parameters():
        if "extractor" not in name and value.requires_grad:
            value.data.copy_(value + 0.1 * torch.randn_like(value) if value.ndim < 2 else value * gain)
    for name, value in net.named_buffers():
        if name.endswith("running_mean"):
            value.fill_(-20.0) if name.startswith("bn0") else value.normal_(std=0.3)
        if name.endswith("running_var"):
            value.fill_(300.0) if name.startswith("bn0") else value.uniform_(0.5, 2.0)
    return net.eval()


def sound(seconds, rate):
    """Noise, and noise that swells: [2, T]."""
    wav = 0.3 * torch.randn(ROWS, seconds * rate)
    wav[1] *= torch.linspace(0, 1, wav.shape[1])
    return wav


def report(name, **pairs):
    """One line: the largest difference of each pair, and how large its values are."""
    parts = [f"{what} {float((a - b).abs().max()):.1e} of {float(b.abs().max()):.2g}" for what, (a, b) in pairs.items()]
    print(f"{name}: {', '.join(parts)}", flush=True)


def vggish(folder, file):
    sys.path.insert(0, str(next(folder.glob("torchvggish-*/"))))
    stand_in("resampy")
    port, front = (importlib.import_module(f"torchvggish.{name}") for name in ("torchvggish", "vggish_input"))
    net = lively(port._vgg(False), 2.0)
    torch.save(net.state_dict(), file)
    net.embeddings = net.embeddings[:-1]  # as every distance tool does
    wav = sound(4, 16_000)[0]
    with torch.no_grad():
        truth = net(front.waveform_to_examples(wav.double().numpy(), 16_000))
    windows = wav.unfold(0, 15_600, 15_360)[:, None]
    report("VGGish", vector=(load("vggish-torch", file).embed(windows), truth))


def panns(folder, file):
    stand_in("panns_inference").__path__ = [str(folder / "panns_inference")]
    models = importlib.import_module("panns_inference.models")
    for name, rate, n_fft, hop, high in (("32k", 32_000, 1024, 320, 14_000), ("16k", 16_000, 512, 160, 8000)):
        net = lively(models.Cnn14(rate, n_fft, hop, 64, 50, high, 527), 1.5)
        torch.save({"model": net.state_dict()}, file)
        judge, wav = load(f"panns-cnn14-{name}", file), sound(10, rate)
        with torch.no_grad():
            truth = net(wav)
        tags = judge.tagger.embed(wav[:, None]).sigmoid()
        report(f"CNN14 {name}", vector=(judge.embed(wav[:, None]), truth["embedding"]),
               tags=(tags, truth["clipwise_output"]))  # fmt: skip


def passt(folder, file):
    bank = stand_in("torchaudio.compliance.kaldi", get_mel_banks=kaldi)
    masks = stand_in("torchaudio.transforms", FrequencyMasking=nn.Identity, TimeMasking=nn.Identity)
    stand_in("torchaudio", compliance=stand_in("torchaudio.compliance", kaldi=bank), transforms=masks)
    stand_in("timm", models=stand_in("timm.models", hub=stand_in("timm.models.hub", download_cached_file=None)))
    models = quietly(importlib.import_module, "hear21passt.models.passt")
    front = importlib.import_module("hear21passt.models.preprocess")
    complex_stft = torch.stft
    for stride, seconds, frames, depth in ((10, 10, 998, 12), (10, 20, 2000, 3), (16, 10, 998, 3)):
        size = {"img_size": (128, frames), "stride": (stride, stride), "depth": depth}
        net = lively(quietly(models.PaSST, distilled=True, **size), 2.5)
        mel = quietly(front.AugmentMelSTFT, fmin_aug_range=10, fmax_aug_range=2000).eval()
        torch.save(net.state_dict(), file)
        judge, wav = load("passt-s-20sec-p16-s10-ap474", file), sound(seconds, 32_000)
        # it was written for a torch whose stft had no complex numbers
        torch.stft = lambda *args, return_complex=False, **more: torch.view_as_real(
            complex_stft(*args, return_complex=True, **more)
        )
        patch = quietly(mel, wav)
        torch.stft = complex_stft
        logits, vector = quietly(net, patch[:, None])
        report(f"PaSST stride {stride}, {seconds} s, {depth} blocks", vector=(judge.embed(wav[:, None]), vector),
               logits=(judge.tagger.embed(wav[:, None]), logits))  # fmt: skip


def laion(folder, file):
    stand_in("laions").__path__ = [str(folder / "laion_clap" / "clap_module")]
    stand_in("torchvision.ops.misc", FrozenBatchNorm2d=nn.BatchNorm2d)
    stand_in("torchvision.ops"), stand_in("torchvision"), stand_in("h5py")
    htsat = importlib.import_module("laions.htsat")
    sizes = {"sample_rate": 48_000, "window_size": 1024, "hop_size": 480, "fmin": 50, "fmax": 14_000, "mel_bins": 64}
    for size, fused in (("tiny", False), ("tiny", True), ("base", False)):
        config = types.SimpleNamespace(class_num=527, model_type="HTSAT", model_name=size, **sizes)
        audio = lively(htsat.create_htsat_model(config, fused, "aff_2d" if fused else "None"), 2.0)
        text = lively(RobertaModel(RobertaConfig(
            vocab_size=100, hidden_size=128, num_hidden_layers=2, num_attention_heads=2, intermediate_size=256,
            max_position_embeddings=90, type_vocab_size=1, layer_norm_eps=1e-5,
        )), 2.0)  # fmt: skip
        heads = [nn.Sequential(nn.Linear(w, 512), nn.ReLU(), nn.Linear(512, 512)) for w in (audio.num_features, 128)]
        parts = {"audio_branch": audio, "text_branch": text, "audio_projection": heads[0], "text_projection": heads[1]}
        state = {f"module.{name}.{key}": v for name, part in parts.items() for key, v in part.state_dict().items()}
        state |= {"module.logit_scale_a": torch.tensor(2.0), "module.logit_scale_t": torch.tensor(2.0)}
        torch.save({"epoch": 1, "state_dict": state}, file)
        judge, wav = load("laion-clap-630k-best", file), sound(10, 48_000)
        ids = torch.tensor([[0, 5, 7, 2] + [1] * 73, [0, 9, 8, 33, 12, 2] + [1] * 71])
        judge.words = lambda captions, ids=ids: (ids, (ids != 1).long())
        heard = {"waveform": wav, "longer": torch.zeros(ROWS, 1, dtype=torch.bool)}
        if fused:
            bank = ClapFeatureExtractor(frequency_min=50, frequency_max=14_000)
            logs = [bank._np_extract_fbank_features(row.double().numpy(), bank.mel_filters) for row in wav]
            heard["mel_fusion"] = torch.stack([torch.from_numpy(row).float() for row in logs])[:, None].repeat(
                1, 4, 1, 1
            )
        with torch.no_grad():
            one = functional.normalize(heads[0](audio(heard, device="cpu")["embedding"]), dim=-1)
            two = functional.normalize(
                heads[1](text(input_ids=ids, attention_mask=(ids != 1).long()).pooler_output), dim=-1
            )
        report(f"CLAP HTSAT {size}{', fused' * fused}", audio=(judge.embed(wav[:, None]), one),
               text=(judge.embed_text(["", ""]), two))  # fmt: skip


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    folder = Path(sys.argv[1]).resolve()
    sys.path.insert(0, str(folder))
    with tempfile.TemporaryDirectory() as place:
        for part in (vggish, panns, laion, passt):  # passt last: transformers must not find its torchaudio
            torch.manual_seed(0)
            part(folder, Path(place) / "weights.pt")


if __name__ == "__main__":
    main()
