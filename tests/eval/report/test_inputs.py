import json

import pytest
import torch

from descant.eval.report import inputs, rows
from descant.eval.report.inputs import About

TABLES = {
    "a.csv": "file,caption,bpm,Key,instruments\nx/one.wav,\"slow, blue\",92,G minor,piano; bass\n",
    "a.tsv": "clip\tprompt\ttempo\tkey\tinstruments\nx/one\tslow, blue\t92\tG minor\tpiano, bass\n",
    "a.jsonl": '{"path": "x/one.flac", "text": "slow, blue", "tempo": "92 BPM", "key": "G minor", '
               '"instruments": ["piano", "bass"]}\n\n',
    "list.json": '[{"name": "x/one", "caption": "slow, blue", "tempo": 92, "key": "G minor", '
                 '"instruments": ["piano", "bass"]}]',
    "object.json": '{"x/one": {"caption": "slow, blue", "tempo": 92, "key": "G minor", '
                   '"instruments": "piano,bass"}}',
}  # fmt: skip


@pytest.mark.parametrize("name", TABLES)
def test_every_usual_layout_is_read_alike(tmp_path, name):
    path = tmp_path / name
    path.write_text(TABLES[name], encoding="utf-8-sig")
    found = inputs.match(name, inputs.read_table(path), ["x/one", "two"])
    assert found.about == {
        "x/one": About(caption="slow, blue", tempo=92.0, key="G minor", instruments=("piano", "bass"))
    }
    assert found.without == ("two",) and found.spare == ()


def test_an_object_of_captions_and_what_generate_reports(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"one": "slow", "two": "fast"}')
    assert inputs.read_table(path)["two"] == About(caption="fast")
    row = {
        "file": "out/take_1.wav",
        "text": "a tango",
        "asked": {"key": "D minor"},
        "chosen": {"tempo": 110.0, "key": "E"},
    }
    path.write_text(json.dumps({"results": [row]}))
    found = inputs.match("a.json", inputs.read_table(path), ["take_1"])
    assert found.about["take_1"] == About(caption="a tango", tempo=110.0, key="D minor")


@pytest.mark.parametrize(("name", "text", "said"), [
    ("a.csv", "title,caption\nx,y\n", "its columns are title, caption; one must be called file or clip"),
    ("a.csv", "file,caption\n", "holds no entry"),
    ("a.csv", "file,caption\nx,y\nx,z\n", "line 3 names x again"),
    ("a.csv", "file,tempo\nx,fast\n", "line 2: the tempo is 'fast'; write beats a minute"),
    ("a.csv", "file,tempo\nx,-3\n", "the tempo is -3"),
    ("a.jsonl", '{"file": "x"}\n{"file": \n', "line 2 is no JSON"),
    ("a.jsonl", "[1]\n", "line 1 is list, not an object"),
    ("a.json", "3", "neither a list of objects"),
    ("a.json", '[{"caption": "x"}]', "entry 1 names no clip"),
    ("a.xls", "x", "use .csv, .tsv, .json or .jsonl"),
])  # fmt: skip
def test_mistakes_are_named_with_their_place(tmp_path, name, text, said):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(ValueError, match=said.replace("(", r"\(")):
        inputs.read_table(path)


def test_a_missing_table_and_one_in_another_code(tmp_path):
    with pytest.raises(ValueError, match=r"no such file; name a \.csv"):
        inputs.read_table(tmp_path / "a.csv")
    (tmp_path / "b.csv").write_bytes("file,caption\nx,früh\n".encode("latin-1"))
    with pytest.raises(ValueError, match="save it as UTF-8"):
        inputs.read_table(tmp_path / "b.csv")


def test_a_file_name_alone_will_do_where_it_is_the_only_one():
    table = {"one.wav": About(caption="a"), "both.wav": About(caption="b"), "x\\win.wav": About(caption="c")}
    found = inputs.match("t", table, ["deep/one", "p/both", "q/both", "x/win"])
    assert {name: item.caption for name, item in found.about.items()} == {"deep/one": "a", "x/win": "c"}
    assert found.spare == ("both.wav",) and found.without == ("p/both", "q/both")
    assert found.notes() == ("2 clips are not named in t: p/both, q/both", "1 entries of t have no clip: both.wav")


def test_files_beside_the_clips(tmp_path):
    files = {}
    for name in ("one", "two", "three"):
        files[name] = tmp_path / f"{name}.wav"
    (tmp_path / "one.txt").write_text("slow blues\n")
    (tmp_path / "two.json").write_text('{"caption": "fast", "tempo": 140, "melody": "tune.csv"}')
    found = inputs.sidecars("beside", files)
    assert found.about["one"].caption == "slow blues" and found.about["two"].tempo == 140
    assert found.about["two"].melody == str((tmp_path / "tune.csv").resolve()) and found.without == ("three",)
    (tmp_path / "three.json").write_text("{")
    with pytest.raises(ValueError, match=r"three\.json: is no JSON"):
        inputs.sidecars("beside", files)


@pytest.mark.parametrize(("text", "key"), [
    ("A minor", "A minor"), ("Am", "A minor"), ("a:min", "A minor"), ("Bb", "Bb major"), ("Bbm", "Bb minor"),
    ("F# major", "F# major"), ("Gb maj", "F# major"), ("C", "C major"), ("d♭ minor", "C# minor"), ("CM", "C major"),
    ("b minor", "B minor"), ("H", None), ("loud", None), ("", None),
])  # fmt: skip
def test_keys_as_people_write_them(text, key):
    assert rows.parse_key(text) == key


def test_melodies_as_people_write_them(tmp_path):
    (tmp_path / "a.csv").write_text("onset,length,note\n0.0,0.1,60\n0.2,0.1,62\n")
    (tmp_path / "a.json").write_text('{"notes": [[0.0, 0.1, 60], [0.2, 0.1, 62]]}')
    one, two = (rows.written(tmp_path / name)[0] for name in ("a.csv", "a.json"))
    assert torch.equal(torch.nan_to_num(one), torch.nan_to_num(two))
    assert one[2] == 60 and one[12] == 62 and bool(one[7].isnan())
    for text in ('{"tune": 1}', "[[0, 1]]", "[]"):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(ValueError, match="holds no"):
            rows.written(tmp_path / "bad.json")
