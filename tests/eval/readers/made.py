"""Tiny copies of the layouts of public data sets, written with soundfile."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import soundfile

RATE = 8000


def sound(path: Path, seconds: float = 0.5, level: float = 0.1, channels: int = 1, rate: int = RATE) -> Path:
    """A file of one constant level, so that sums can be counted."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.full((round(seconds * rate), channels), level, np.float32), rate)
    return path


def musiccaps(root: Path) -> Path:
    head = ["ytid", "start_s", "end_s", "audioset_positive_labels", "aspect_list", "caption", "author_id",
            "is_balanced_subset", "is_audioset_eval"]  # fmt: skip
    rows = [
        ["-0Gj8-vB1q4", 30, 40, "/m/04rlf", "['low quality', \"rock'n'roll\"]", 'A "live" take,\nloud drums', 4, False,
         True],
        ["0-0000000aA", 1, 2, "/m/04rlf", "['female singer']", "She tells a story", 4, True, True],
        ["whole_video", 2, 3, "/m/04rlf", "['piano']", "Piano", 4, False, False],
        ["not_here_at", 30, 40, "/m/04rlf", "['piano']", "Gone", 4, False, True],
        ["odd__length", 30, 40, "/m/04rlf", "['piano']", "Odd", 4, False, True],
    ]  # fmt: skip
    with (root / "musiccaps-public.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([head, *rows])
    sound(root / "clips" / "[-0Gj8-vB1q4]-[30-40].wav", 1.0)
    sound(root / "clips" / "0-0000000aA_1_2.flac", 1.0)
    sound(root / "clips" / "whole_video.wav", 4.0)
    sound(root / "clips" / "odd__length.wav", 13.0)
    return root


def song_describer(root: Path) -> Path:
    (root / "song_describer.csv").write_text(
        "caption_id,track_id,caption,is_valid_subset,familiarity,artist_id,album_id,path,duration\n"
        "1,1004034,A calm piano piece,True,0,a1,b1,34/1004034.mp3,202.5\n"
        "2,1004034,\"Piano, with a soft voice\",False,1,a1,b1,34/1004034.mp3,202.5\n"
        "3,214,Drums and bass,False,0,a2,b2,14/214.mp3,100.0\n"
        "4,999,Not downloaded,True,0,a3,b3,99/999.mp3,100.0\n"
        "3,214,Again,True,0,a2,b2,14/214.mp3,100.0\n"
        "five,x,,True\n",
        encoding="utf-8",
    )  # fmt: skip
    sound(root / "audio" / "34" / "1004034.2min.wav")
    sound(root / "audio" / "14" / "214.wav")
    return root


def musdb_hq(root: Path, broken: bool = True) -> Path:
    for song in ("train/A Band - One", "train/ANiMAL - Rockshow", "test/B Band - Two - Live"):
        for place, name in enumerate(("mixture", "drums", "bass", "other", "vocals")):
            sound(root / song / f"{name}.wav", level=0.1 * place or 0.4, channels=2)
    if broken:
        sound(root / "test/C - Broken/mixture.wav")
    return root


def moisesdb(root: Path) -> Path:
    song = root / "moisesdb_v0.1" / "11111111-aaaa"
    stems = [
        {"id": "s1", "stemName": "vocals", "tracks": [
            {"id": "v1", "trackType": "lead male singer", "extension": "wav", "has_bleed": False},
            {"id": "v2", "trackType": "background vocals", "extension": "wav", "has_bleed": True}]},
        {"id": "s2", "stemName": "percussion", "tracks": [
            {"id": "p1", "trackType": "shakers", "extension": "wav", "has_bleed": False}]},
        {"id": "s3", "stemName": "guitar", "tracks": [
            {"id": "g1", "trackType": "acoustic guitar", "extension": "wav", "has_bleed": False}]},
    ]  # fmt: skip
    for path, seconds, level in (("vocals/v1", 0.5, 0.1), ("vocals/v2", 0.3, 0.2), ("percussion/p1", 0.4, 0.05),
                                 ("guitar/g1", 0.6, 0.02)):  # fmt: skip
        sound(song / f"{path}.wav", seconds, level)
    about = {"song": "Title", "artist": "Somebody", "genre": "pop", "stems": stems}
    (song / "data.json").write_text(json.dumps(about), encoding="utf-8")
    worse = root / "moisesdb_v0.1" / "22222222-bbbb"
    worse.mkdir()
    (worse / "data.json").write_text(json.dumps({"stems": [{"stemName": "../x", "tracks": []}]}), encoding="utf-8")
    return root


SLAKH = """UUID: 1a81ae092884234f3264e2f45927f00a
audio_dir: stems
normalization_factor: -13.0
normalized: true
overall_gain: 0.18270259567062658
stems:
  S00:
    audio_rendered: true
    inst_class: Guitar
    integrated_loudness: -12.82074180245363
    is_drum: false
    midi_program_name: Distortion Guitar
    midi_saved: true
    plugin_name: elektrik_guitar.nkm
    program_num: 30
  S01:
    audio_rendered: false
    inst_class: Bass
    is_drum: false
    midi_program_name: Electric Bass (pick)
    midi_saved: false
    program_num: 34
  S02:
    audio_rendered: true
    inst_class: Percussive
    is_drum: true
    midi_program_name: Drums
    program_num: 128
target_peak: -1.0
"""


def slakh(root: Path) -> Path:
    for song in ("train/Track00001", "omitted/Track00002", "test/Track00003"):
        sound(root / song / "mix.flac")
        for stem in ("S00", "S02"):
            sound(root / song / "stems" / f"{stem}.flac")
        (root / song / "MIDI").mkdir()
        (root / song / "MIDI" / "S00.mid").write_bytes(b"MThd")
        (root / song / "metadata.yaml").write_text(SLAKH, encoding="utf-8")
    (root / "test/Track00003/stems/S02.flac").unlink()
    return root


def fma(root: Path, folder: str = "fma_small") -> Path:
    upper = ["", "album", "artist", "set", "set", "track", "track", "track", "track", "track"]
    lower = ["", "title", "name", "split", "subset", "genre_top", "genres_all", "license", "title", "duration"]
    rows = [
        [2, "AWOL", "AWOL", "training", "small", "Hip-Hop", "[21]", "CC BY", "Food", 168],
        [5, 'Long\n"quoted" text', "AWOL", "test", "small", "Hip-Hop", "[21, 12]", "CC BY", "This World", 206],
        [10, "Constant", "Kurt", "training", "medium", "", "[12]", "CC0", "Freeway", 161],
        [134, "Gone", "X", "validation", "small", "Rock", "[12]", "CC BY", "Gone", 100],
        ["x1", "Bad", "X", "validation", "small", "Rock", "[12]", "CC BY", "Gone", 100],
    ]
    (root / "fma_metadata").mkdir(parents=True)
    with (root / "fma_metadata" / "tracks.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([upper, lower, ["track_id", *[""] * 9], *rows])
    (root / "fma_metadata" / "genres.csv").write_text(
        "genre_id,#tracks,parent,title,top_level\n21,1,0,Hip-Hop,21\n12,1,0,Rock,12\n", encoding="utf-8"
    )
    sound(root / folder / "000" / "000002.wav")
    sound(root / folder / "000" / "000005.wav")
    return root


def jamendo(root: Path) -> Path:
    head = "TRACK_ID\tARTIST_ID\tALBUM_ID\tPATH\tDURATION\tTAGS\n"
    rows = (
        "track_0000214\tartist_000014\talbum_000031\t14/214.mp3\t124.6\tgenre---punkrock\tgenre---rock\n",
        "track_0000215\tartist_000014\talbum_000031\t15/215.mp3\t151.4\tmood/theme---happy\tinstrument---piano\tgenre---pop\n",
        "track_0000999\tartist_000014\talbum_000031\t99/999.mp3\t1.0\tgenre---pop\n",
        "track_0000998\tartist_000014\n",
    )  # fmt: skip
    (root / "data" / "splits" / "split-0").mkdir(parents=True)
    (root / "data" / "autotagging.tsv").write_text(head + "".join(rows), encoding="utf-8")
    for split, row in (("train", rows[0]), ("test", rows[1])):
        (root / "data" / "splits" / "split-0" / f"autotagging-{split}.tsv").write_text(head + row, encoding="utf-8")
    sound(root / "audio" / "14" / "214.low.wav")
    sound(root / "audio" / "15" / "215.wav")
    return root


def medleydb(root: Path) -> Path:
    song = root / "Audio" / "MusicDelta_Rock"
    sound(song / "MusicDelta_Rock_MIX.wav")
    for number in (1, 2):
        sound(song / "MusicDelta_Rock_STEMS" / f"MusicDelta_Rock_STEM_0{number}.wav", level=0.1 * number)
    (song / "MusicDelta_Rock_METADATA.yaml").write_text(
        "album: ''\nartist: Music Delta\ncomposer:\n- Nobody\ngenre: Rock\nhas_bleed: 'no'\ninstrumental: 'yes'\n"
        "producer: ['']\nstems:\n  S01:\n    component: ''\n    filename: MusicDelta_Rock_STEM_01.wav\n"
        "    instrument: drum set\n    raw:\n      R01: {}\n  S02:\n    filename: MusicDelta_Rock_STEM_02.wav\n"
        "    instrument: electric bass\ntitle: Rock\nversion: 1.2\n",
        encoding="utf-8",
    )
    return root
