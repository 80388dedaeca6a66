import json
import math
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from descant.codec import audio
from descant.codec.model import Codec, nano
from descant.eval import reconstruction
from descant.eval.judge import Judge
from descant.gen.load import Studio
from descant.gen.prompt import parse_prompt
from descant.lm.model import LMConfig, TokenLM
from descant.lm.text import train_tokenizer
from descant.lm.vocab import FAMILIES, GENRES, INSTRUMENTS, KEYS
from descant.recipes import bench, bench_adherence, bench_codec, bench_lm, bench_report, bench_verbs, judge
from descant.recipes.bench import BenchConfig
from descant.recipes.bench_adherence import MEASURES, Heard, held_out_prompts, score, wanted
from descant.recipes.piece import write_pieces
from descant.recipes.prepare import fingerprint

sys.path.insert(0, str(Path(__file__).parent))
from made import piece

RATE = 32_000


def tones(seconds=4.0):
    time = torch.arange(int(seconds * RATE)) / RATE
    wave = sum(0.1 * torch.sin(2 * math.pi * f * time) for f in (220, 440, 1760, 5000))
    noise = 0.02 * torch.randn(len(time), generator=torch.Generator().manual_seed(0))
    return (wave * (1 + 0.5 * torch.sin(2 * math.pi * 3 * time)) + noise)[None]


@pytest.fixture(scope="module")
def codec():
    torch.manual_seed(0)
    return Codec(nano()).eval()


@pytest.fixture(scope="module")
def studio(codec):
    torch.manual_seed(0)
    config = LMConfig(width=32, layers=2, heads=2, window=64, books=4, cardinality=codec.cardinality, text_vocab=96)
    words = [wanted(piece(number), number).text for number in range(40)]
    return Studio(codec, TokenLM(config, train_tokenizer(words, config.text_vocab)).eval(), "tests")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Pieces, recordings and a tagger as a benchmark wants them."""
    root = tmp_path_factory.mktemp("bench")
    write_pieces(root / "data" / "train.jsonl.gz", [piece(number) for number in range(4)])
    write_pieces(root / "data" / "test.jsonl.gz", [piece(number, "test") for number in range(4, 12)])
    (root / "real").mkdir()
    audio.write(root / "real" / "song.wav", audio.Audio(tones(8.0), RATE))
    torch.manual_seed(0)
    Judge(judge.config(2, timbre=8, rhythm=8, tonal=2, dim=8, reader=8, reader_layers=1)).save(root / "judge")
    return root


def heard_like(prompt):
    return Heard(
        tempo=prompt.tempo, key=prompt.key, genre=prompt.genre, families=tuple(sorted(prompt.families)),
        genres={name: float(name == prompt.genre) for name in GENRES}, lead=prompt.lead,
        family_chances={name: float(name in prompt.families) for name in FAMILIES},
        instrument_chances={name: float(name in prompt.instruments) for name in INSTRUMENTS},
    )  # fmt: skip


def test_opus_is_counted_in_real_bytes_and_improves_with_them():
    wav = tones()
    rows = [bench_codec.through_opus(wav, RATE, rate) for rate in (6, 16, 64)]
    kbps = [row[1] for row in rows]
    assert kbps == sorted(kbps)
    assert all(nominal * 0.6 < real < nominal * 2 for nominal, real in zip((6, 16, 64), kbps, strict=True))
    from descant.eval.reconstruction import si_sdr

    scores = [si_sdr(wav, row[0]) for row in rows]
    assert scores == sorted(scores)
    assert scores[-1] > 10  # which also says that it is aligned to the sample
    with pytest.raises(ValueError, match="6 to 256"):
        bench_codec.through_opus(wav, RATE, 2)


def test_the_codec_is_charged_for_its_raw_codes(codec):
    wav = tones(2.0)
    for books in (4, codec.books):
        out, kbps = bench_codec.through_codec(codec, wav, books)
        assert out.shape == wav.shape
        assert kbps == pytest.approx(books * math.log2(codec.cardinality) * 50 / 1000)


def test_codec_rows_hold_every_measure_and_use_counts_every_frame(codec):
    clips = {"a": tones(2.0), "b": 0.5 * tones(2.0).flip(1)}
    found = bench_codec.measure(codec, clips, (2,), (12,))
    assert [row["system"] for row in found["rows"]] == ["descant, 2 books", "Opus mono 12"]
    for row in found["rows"]:
        assert set(row["mean"]) == {"kbps", *bench_codec.MEASURES}
        mean, low, high = row["mean"]["mel"]
        assert low <= mean <= high
        assert mean == pytest.approx(sum(clip["mel"] for clip in row["clips"].values()) / 2)
    use = bench_codec.use(codec, list(clips.values()))
    assert len(use) == codec.books
    assert all(book["frames"] == 200 for book in use)
    with pytest.raises(ValueError, match="no clips"):
        bench_codec.measure(codec, {}, (2,))


def test_prompts_are_combinations_nobody_trained_on():
    # the keys of 'made' pieces return every 24 numbers and their leads depend on the genre
    train = [piece(number) for number in range(6)]
    test = [piece(number, "test") for number in range(80)]
    chosen = held_out_prompts(test, train, 12)
    cores = {(item.genre, item.key, bench_adherence.lead_of(item)) for item in train}
    assert not cores & {(item.genre, item.key, bench_adherence.lead_of(item)) for item, _ in chosen}
    seen = {bench_adherence.combination(item) for item in train}
    combinations = [bench_adherence.combination(item) for item, _ in chosen]
    assert not seen & set(combinations)
    assert len(set(combinations)) == 12
    genres = [prompt.genre for _, prompt in chosen]
    assert genres.count("waltz") == genres.count("electronic") == 6
    with pytest.raises(ValueError, match="held-out combinations"):
        held_out_prompts(test, train, 1000)


def test_every_sentence_is_understood_as_it_was_meant():
    misread = []
    for index, genre in enumerate(GENRES):
        for key in KEYS:
            for offset in range(4):
                number = index * 24 + KEYS.index(key)
                names = [INSTRUMENTS[(number * 3 + step * 5) % len(INSTRUMENTS)] for step in range(1 + number % 4)]
                made = piece(1)
                stems = tuple(replace(made.stems[0], instrument=name, role=f"part {i}") for i, name in enumerate(names))
                prompt = wanted(replace(made, genre=genre, key=key, tempo=60.4 + number % 120, stems=stems), offset)
                wish = parse_prompt(prompt.text)
                if (wish.genre, wish.key, wish.tempo, set(wish.instruments)) != (
                    genre, key, prompt.tempo, set(prompt.instruments),
                ):  # fmt: skip
                    misread.append((prompt.text, wish))
    assert not misread, misread[:3]


def test_scores_of_perfect_and_of_indifferent_clips():
    prompts = [wanted(piece(number), number) for number in range(12)]
    perfect = score([heard_like(prompt) for prompt in prompts], prompts, shuffles=2000)
    assert set(perfect) == set(MEASURES)
    for name, row in perfect.items():
        best = 0 if "nats" in name else 1
        assert row["mean"] == pytest.approx(best, abs=1e-3), name
        assert row["shuffled"] < best - 0.15
        assert row["p"] < 0.01, name
    same = score([heard_like(prompts[0])] * 12, prompts, shuffles=500)
    assert all(row["p"] > 0.2 for row in same.values())
    with pytest.raises(ValueError, match="pair up"):
        score([], prompts)


def test_measures_by_hand():
    prompt = replace(
        wanted(piece(1)), tempo=100.0, key="G major", genre="rock", instruments=("drums", "flute"), lead="flute"
    )
    genres = dict.fromkeys(GENRES, 0.0) | {"rock": 0.25, "pop": 0.75}
    families = ("drums", "keys", "bass")
    chances = {"keys": 0.8, "pipes": 0.5, "drums": 0.1}
    heard = Heard(tempo=200.0, key="E minor", genre="pop", genres=genres, families=families, lead="recorder",
                  family_chances=chances, instrument_chances={"flute": 0.25, "oboe": 0.0})  # fmt: skip
    values = {name: measure(heard, prompt) for name, measure in MEASURES.items()}
    assert values == pytest.approx({
        "tempo within 4 %": 0, "tempo or a metrical multiple": 1, "key exact": 0, "key, MIREX weighted": 0.3,
        "genre": 0, "genre, probability": 0.25, "instrument families, F1": 0.4, "lead instrument's family": 1,
        "instrument families, likelihood in nats": (math.log(0.2) + math.log(0.5) + math.log(0.1)) / 3,
        "instruments, likelihood in nats": math.log(0.25) / 2,
    })  # fmt: skip
    silent = replace(heard, tempo=0.0, key="", families=(), lead="drums")
    bounded = [measure(silent, prompt) for name, measure in MEASURES.items() if "nats" not in name]
    assert sum(bounded) == pytest.approx(0.25)
    assert bench_adherence.relations([heard, silent], [prompt, prompt]) == {"double": 1, "other": 1}
    assert Heard.from_dict(json.loads(json.dumps(asdict(heard)))) == heard


def test_a_process_is_timed_and_its_failure_told():
    wall, peak = bench_verbs.timed([sys.executable, "-c", "import time; x = bytearray(80_000_000); time.sleep(0.2)"])
    assert wall > 0.2
    assert 80 < peak < 130
    # not what this process once needed, nor its libraries, which are on its children's account when they begin
    held = bytearray(300_000_000)
    held[::4096] = b"x" * len(held[::4096])
    assert bench_verbs.timed([sys.executable, "-c", "pass"])[1] < 60
    del held
    with pytest.raises(RuntimeError, match="oh dear"):
        bench_verbs.timed([sys.executable, "-c", "raise SystemExit('oh dear')"])
    with pytest.raises(RuntimeError, match="could not be started"):
        bench_verbs.timed(["/no/such/program"])


def token_folders(place, mark):
    """Shards of drawn tokens for training and testing."""
    import numpy as np

    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        folder = place / split
        folder.mkdir()
        (folder / "tokens.json").write_text(json.dumps(mark))
        codes = rng.integers(0, mark["cardinality"], (300, 4)).astype(np.uint16)
        np.savez(folder / "tokens-00000.npz", codes=codes, starts=np.array([0, 100, 200, 300]))
        write_pieces(folder / "pieces-00000.jsonl.gz", [piece(number) for number in range(3)])


def test_lm_refuses_tokens_of_another_codec(tmp_path, studio):
    token_folders(tmp_path, {"codec": "other", "books": 4, "rate": 32_000, "hop": 640, "cardinality": 1024})
    with pytest.raises(ValueError, match="prepare them again"):
        bench_lm.measure(studio.lm, tmp_path / "train", tmp_path / "test", "this")


def test_lm_cross_entropy_of_an_untrained_model_is_about_uniform(tmp_path, studio, codec):
    mark = {"codec": fingerprint(codec), "books": 4, "rate": 32_000, "hop": 640, "cardinality": codec.cardinality}
    token_folders(tmp_path, mark)
    found = bench_lm.measure(studio.lm, tmp_path / "train", tmp_path / "test", fingerprint(codec), frames=60)
    assert found["crops"] == 3
    for name in ("told", "blind", "wrong"):
        assert len(found[name]) == 4
        assert all(abs(value[0] - math.log(codec.cardinality)) < 1.5 for value in found[name])
    assert all(abs(value - math.log(codec.cardinality)) < 0.6 for value in found["unigram"])


def config_of(folders, tmp_path, **changes):
    values = {
        "data": str(folders / "data"), "real": str(folders / "real"), "judge": str(folders / "judge"),
        "out": str(tmp_path / "docs"), "cache": str(tmp_path / "cache"), "prompts": 2, "seconds": 5.0, "clips": 1,
        "use_clips": 1, **changes,
    }  # fmt: skip
    return BenchConfig(**values)


def test_adherence_codec_and_extend_run_resume_and_are_reported(folders, tmp_path, studio, monkeypatch):
    monkeypatch.setattr(bench.Bench, "studio", studio)
    monkeypatch.setattr(bench_codec.measure, "__defaults__", ((12,), None))
    monkeypatch.setattr(reconstruction, "visqol", lambda reference, estimate, rate: 3.0)  # a second a clip
    config = config_of(folders, tmp_path)
    log = []
    report = bench.run(config, ["adherence", "codec"], log.append, command="descant bench main --only adherence codec")
    assert set(report["sections"]) == {"adherence", "codec"}
    rows = report["sections"]["adherence"]["rows"]
    assert set(rows) == {"ours", "codec", "plain"}
    assert all(0 <= row["mean"] <= 1 for name in rows for measure, row in rows[name].items() if "nats" not in measure)
    assert set(report["sections"]["codec"]) >= {"rendered", "real"}
    # a second run measures nothing again, a further section joins what is there
    before = len(log)
    report = bench.run(config, ["adherence", "extend"], log.append)
    assert not [line for line in log[before:] if line.startswith(("adherence", "codec"))]
    assert report["sections"]["extend"]["count"] == 2
    assert report["sections"]["extend"]["kept_si_sdr"]["mean"] > 15
    assert set(report["sections"]) == {"adherence", "codec", "extend"}
    assert json.loads((tmp_path / "docs" / "main.json").read_text()) == json.loads(json.dumps(report))
    page = (tmp_path / "docs" / "main.md").read_text()
    for words in ("shuffled prompts", "true clips through the codec", "ViSQOL", "Opus mono 12", "seam", "bench main"):
        assert words in page


def test_a_killed_run_keeps_its_clips(folders, tmp_path, studio, monkeypatch):
    monkeypatch.setattr(bench.Bench, "studio", studio)
    config = config_of(folders, tmp_path)
    made = []
    real = bench_verbs._generated

    def failing(runner, index, text):
        if index == 1 and len(made) < 2:
            made.append("killed")
            raise KeyboardInterrupt
        made.append(index)
        return real(runner, index, text)

    monkeypatch.setattr(bench_verbs, "_generated", failing)
    with pytest.raises(KeyboardInterrupt):
        bench.run(config, ["adherence"])
    assert made == [0, "killed"]
    bench.run(config, ["adherence"])
    assert made == [0, "killed", 1]


def test_new_weights_start_afresh(folders, tmp_path, studio, codec):
    one, other = bench.Bench(config_of(folders, tmp_path), print), bench.Bench(config_of(folders, tmp_path), print)
    one.__dict__["studio"] = studio
    torch.manual_seed(9)
    other.__dict__["studio"] = Studio(codec, TokenLM(studio.lm.config).eval(), "tests")
    assert one.mark != other.mark
    assert one.folder != other.folder
    moved = bench.Bench(config_of(folders, tmp_path, out="elsewhere"), print)
    moved.__dict__["studio"] = studio
    assert moved.mark == one.mark


def test_real_clips_are_spread_and_loud_enough(folders, tmp_path, studio):
    runner = bench.Bench(config_of(folders, tmp_path), print)
    runner.__dict__["studio"] = studio
    clips = runner.real_clips(2)
    assert len(clips) == 2
    assert all(clip.shape == (1, 5 * RATE) for clip in clips.values())
    assert bench.Bench(config_of(folders, tmp_path, real=None), print).real_clips(2) == {}


def test_the_whole_report_without_matplotlib(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    sections = {
        "lm": {"told": [[3.0, 2.9, 3.1]] * 4, "blind": [[4.0, 3.9, 4.1]] * 4, "wrong": [[4.5, 4.4, 4.6]] * 4,
               "unigram": [6.0] * 4, "bigram": [5.0] * 4, "train_hours": 10.0, "test_hours": 1.0, "crops": 9},
        "speed": {"wall_s": [7.0, 8.0, 9.0], "peak_rss_mb": 900.0, "identical": True, "help_s": 0.2, "seconds": 10.0},
    }  # fmt: skip
    about = {
        "command": "descant bench main", "machine": {"cpu": "a machine", "cores": 2, "threads": 2, "system": "Linux"},
        "versions": {"descant": "0", "torch": "2", "python": "3"},
        "weights": {"codec": "abc", "codec_parameters": 7_000_000, "lm_parameters": 2e7, "mark": "x"}, "settings": {},
    }  # fmt: skip
    bench_report.write(tmp_path, {"about": about, "sections": sections})
    page = (tmp_path / "main.md").read_text()
    assert "| bigram | 5.000 |" in page
    assert "8.0 s (median of 3)" in page
    assert "a machine" in page
    assert not list(tmp_path.glob("*.png"))


def test_refusals(folders, tmp_path):
    with pytest.raises(ValueError, match="unknown section 'colour'"):
        bench.run(config_of(folders, tmp_path), ["colour"])
    with pytest.raises(ValueError, match="descant render"):
        bench.Bench(config_of(folders, tmp_path, data=str(tmp_path)), print).pieces("test")
    with pytest.raises(ValueError, match="too short"):
        config_of(folders, tmp_path, seconds=1.0)
