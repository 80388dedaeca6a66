"""MusicGen models that the transformers library makes: tiny, random, with everything a published folder has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    EncodecConfig,
    EncodecModel,
    MusicgenConfig,
    MusicgenDecoderConfig,
    MusicgenForCausalLM,
    MusicgenForConditionalGeneration,
    MusicgenMelodyConfig,
    MusicgenMelodyDecoderConfig,
    MusicgenMelodyForCausalLM,
    MusicgenMelodyForConditionalGeneration,
    T5Config,
    T5EncoderModel,
)

CARD = 64
PROMPTS = ["a slow blues", "an upbeat bossa nova with flute and nylon guitar in g minor"]


def quiet() -> None:
    """Keep the library from warning about its own defaults."""
    transformers.logging.set_verbosity_error()


def tokenizer() -> Any:
    """A unigram tokenizer of letters and a few pieces, ending every sentence with a token as T5's does."""
    pieces = ["▁", "▁a", "▁slow", "blues", "bossa", "ar", "in", *"abcdefghijklmnopqrstuvwxyz0123456789,.é"]
    vocab = [
        ("<pad>", 0.0),
        ("</s>", 0.0),
        ("<unk>", -9.0),
        *((piece, -1.0 - i / 50) for i, piece in enumerate(pieces)),
    ]
    made = Tokenizer(models.Unigram(vocab, unk_id=2))
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, eos_token="</s>", pad_token="<pad>", unk_token="<unk>", model_max_length=512
    )


def build(melody: bool = False, channels: int = 1, width: int = 32, text_width: int = 24, **decoder: Any) -> Any:
    """A MusicGen with random weights that are large enough for its decisions to be clear."""
    quiet()
    torch.manual_seed(channels + 2 * melody)
    text = T5Config(d_model=text_width, d_kv=8, d_ff=32, num_layers=2, num_heads=3, vocab_size=64, dropout_rate=0.0)
    codec = EncodecConfig(
        sampling_rate=32000, target_bandwidths=[1.2], codebook_size=CARD, num_filters=4, hidden_size=16,
        codebook_dim=16, upsampling_ratios=[8, 5, 4, 4], use_causal_conv=False, use_conv_shortcut=False,
        num_lstm_layers=1,
    )  # fmt: skip
    sizes = {
        "vocab_size": CARD, "num_hidden_layers": 2, "num_attention_heads": 4, "ffn_dim": 48, "hidden_size": width,
        "num_codebooks": 4 * channels, "audio_channels": channels, "pad_token_id": CARD, "bos_token_id": CARD,
        "dropout": 0.0, **decoder,
    }  # fmt: skip
    encoder, codec_model = T5EncoderModel(text), EncodecModel(codec)
    if melody:
        lm: Any = MusicgenMelodyForCausalLM(MusicgenMelodyDecoderConfig(**sizes))
        config: Any = MusicgenMelodyConfig(
            text_encoder=text.to_dict(), audio_encoder=codec.to_dict(), decoder=lm.config.to_dict(), chroma_length=20
        )
        whole: Any = MusicgenMelodyForConditionalGeneration(config)
    else:
        lm = MusicgenForCausalLM(MusicgenDecoderConfig(**sizes))
        config = MusicgenConfig(text_encoder=text.to_dict(), audio_encoder=codec.to_dict(), decoder=lm.config.to_dict())
        whole = MusicgenForConditionalGeneration(config)
    whole.text_encoder.load_state_dict(encoder.state_dict())
    whole.audio_encoder.load_state_dict(codec_model.state_dict())
    with torch.no_grad():
        for name, weight in whole.named_parameters():
            if name.startswith("decoder.") or "enc_to_dec" in name:
                if "layer_norm.weight" in name:
                    weight.uniform_(0.5, 1.5)
                elif weight.dim() == 1:
                    weight.normal_(std=0.3)  # the library starts them at zero, which would hide mistakes
                else:
                    weight.normal_(std=1.5 * weight.shape[1] ** -0.5)
        for name, codewords in whole.audio_encoder.named_buffers():
            if name.endswith("codebook.embed"):
                codewords.normal_()  # the library starts them at zero too: all tokens would sound alike
    whole.generation_config.decoder_start_token_id = CARD
    whole.generation_config.pad_token_id = whole.generation_config.bos_token_id = CARD
    whole.generation_config.guidance_scale = None
    whole.generation_config.do_sample = False
    return whole.eval()


def saved(model: Any, folder: Path, **options: Any) -> Path:
    """Write model and tokenizer as a published folder has them."""
    model.save_pretrained(folder, **options)
    tokenizer().save_pretrained(folder)
    return folder


def agree(model: Any, cond: Any, found: torch.Tensor, wanted: torch.Tensor, guidance: float = 1.0) -> None:
    """Greedy codes of ours are the library's; where they part, the two choices were as good as equal."""
    assert found.shape == wanted.shape
    if torch.equal(found, wanted):
        return
    ours, theirs = (model.pattern.apply(codes, model.special) for codes in (found, wanted))
    step = int((ours != theirs).any(1).any(0).nonzero()[0])
    logits = model(theirs[:, :, :step], model.ready(cond, guidance != 1.0))[:, :, -1]
    if guidance != 1.0:
        told, free = logits.chunk(2)
        logits = free + guidance * (told - free)
    row, book = (int(i) for i in (ours[:, :, step] != theirs[:, :, step]).nonzero()[0])
    gap = logits[row, book].max() - logits[row, book, ours[row, book, step]]
    other = logits[row, book].max() - logits[row, book, theirs[row, book, step]]
    assert max(gap, other) < 1e-4, f"at step {step} ours lies {gap} below the best, theirs {other}"


def tokens(model: Any, steps: int, **given: Any) -> torch.Tensor:
    """Codes [B, K, F] that the library's generate() makes, taken on their way to its codec."""
    caught: list[torch.Tensor] = []

    def catch(codes: torch.Tensor, *_: Any, **__: Any) -> Any:
        caught.append(codes[0])
        return type("Decoded", (), {"audio_values": torch.zeros(codes.shape[1], 1, 1)})()

    before, model.audio_encoder.decode = model.audio_encoder.decode, catch
    try:
        model.generate(**given, max_new_tokens=steps)
    finally:
        model.audio_encoder.decode = before
    if len(caught) == 2:  # stereo: left, then right
        return torch.stack(caught, 2).flatten(1, 2)
    return caught[0]
