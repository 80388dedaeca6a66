"""The closed vocabularies of the typed controls: genres, instruments, keys, and the words people use for them.

Everything that labels, parses or conditions music reads these tables, so that a renderer's label, a prompt's word
and an embedding's row are the same thing. Text outside the tables still reaches the model through its text encoder.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from types import MappingProxyType

#: Order is the embedding's row order: append only.
GENRES: tuple[str, ...] = (
    "ballad", "blues", "bossa nova", "classical", "country", "disco", "electronic", "folk", "funk", "hip hop",
    "jazz", "latin", "march", "metal", "pop", "reggae", "rock", "salsa", "soul", "swing", "tango", "waltz",
)  # fmt: skip

#: Instrument -> (family, General MIDI programs 0..127). "drums" is the percussion channel.
_INSTRUMENTS: dict[str, tuple[str, tuple[int, ...]]] = {
    "acoustic piano": ("keys", (0, 1, 2, 3)),
    "electric piano": ("keys", (4, 5)),
    "harpsichord": ("keys", (6, 7)),
    "organ": ("keys", (16, 17, 18, 19, 20)),
    "accordion": ("keys", (21, 23)),
    "harmonica": ("reeds", (22,)),
    "nylon guitar": ("guitar", (24,)),
    "steel guitar": ("guitar", (25,)),
    "electric guitar": ("guitar", (26, 27, 28)),
    "distorted guitar": ("guitar", (29, 30, 31)),
    "acoustic bass": ("bass", (32,)),
    "electric bass": ("bass", (33, 34, 35, 36, 37)),
    "synth bass": ("bass", (38, 39)),
    "violin": ("strings", (40, 41, 110)),
    "cello": ("strings", (42, 43)),
    "strings": ("strings", (44, 45, 48, 49, 50, 51)),
    "harp": ("plucked", (46,)),
    "choir": ("voice", (52, 53, 54, 85, 91)),
    "trumpet": ("brass", (56, 59)),
    "trombone": ("brass", (57, 58)),
    "french horn": ("brass", (60,)),
    "brass": ("brass", (55, 61, 62, 63)),
    "saxophone": ("reeds", (64, 65, 66, 67)),
    "oboe": ("reeds", (68, 69, 70, 109, 111)),
    "clarinet": ("reeds", (71,)),
    "flute": ("pipes", (72, 73, 75, 77)),
    "recorder": ("pipes", (74, 76, 78, 79)),
    "vibraphone": ("mallets", (11, 8, 10)),
    "marimba": ("mallets", (12, 13, 108, 114)),
    "glockenspiel": ("mallets", (9, 14, 15, 112)),
    "banjo": ("plucked", (104, 105, 106, 107)),
    "synth lead": ("synth", (80, 81, 82, 83, 84, 86, 87)),
    "synth pad": ("synth", (88, 89, 90, 92, 93, 94, 95)),
    "drums": ("drums", ()),
}

INSTRUMENTS: tuple[str, ...] = tuple(_INSTRUMENTS)
#: Instrument -> family.
FAMILY: Mapping[str, str] = MappingProxyType({name: family for name, (family, _) in _INSTRUMENTS.items()})
FAMILIES: tuple[str, ...] = tuple(dict.fromkeys(FAMILY.values()))
#: Instrument -> General MIDI programs, the first being the most typical.
PROGRAMS: Mapping[str, tuple[int, ...]] = MappingProxyType({name: row[1] for name, row in _INSTRUMENTS.items()})

TONICS: tuple[str, ...] = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
#: 24 keys: row = tonic pitch class + 12 * (minor).
KEYS: tuple[str, ...] = tuple(f"{t} major" for t in TONICS) + tuple(f"{t} minor" for t in TONICS)

#: What people write -> the table's name. Plurals and case are handled by the look-up.
GENRE_ALIASES: Mapping[str, str] = MappingProxyType({
    "bossa": "bossa nova", "bossanova": "bossa nova", "samba": "latin", "rumba": "latin", "cha cha": "latin",
    "chacha": "latin", "mambo": "salsa", "merengue": "latin", "beguine": "latin", "bolero": "latin",
    "bebop": "jazz", "dixieland": "jazz", "big band": "swing", "jive": "swing", "boogie": "blues",
    "shuffle": "blues", "r&b": "soul", "rnb": "soul", "motown": "soul", "gospel": "soul", "hiphop": "hip hop",
    "hip-hop": "hip hop", "rap": "hip hop", "trip hop": "hip hop", "techno": "electronic", "house": "electronic",
    "trance": "electronic", "edm": "electronic", "dance": "disco", "drum and bass": "electronic",
    "dnb": "electronic", "ambient": "electronic", "synthwave": "electronic", "bluegrass": "country",
    "western": "country", "celtic": "folk", "irish": "folk", "jig": "folk", "reel": "folk", "hornpipe": "folk",
    "polka": "folk", "ska": "reggae", "heavy metal": "metal", "hard rock": "metal", "rock and roll": "rock",
    "rock'n'roll": "rock", "punk": "rock", "slow rock": "ballad", "love song": "ballad", "lullaby": "ballad",
    "viennese waltz": "waltz", "marching": "march", "orchestral": "classical", "baroque": "classical",
})  # fmt: skip

INSTRUMENT_ALIASES: Mapping[str, str] = MappingProxyType({
    "piano": "acoustic piano", "grand piano": "acoustic piano", "keys": "electric piano", "rhodes": "electric piano",
    "clavinet": "harpsichord", "hammond": "organ", "hammond organ": "organ", "church organ": "organ",
    "bandoneon": "accordion", "concertina": "accordion", "classical guitar": "nylon guitar",
    "spanish guitar": "nylon guitar", "acoustic guitar": "steel guitar", "guitar": "electric guitar",
    "clean guitar": "electric guitar", "jazz guitar": "electric guitar", "overdriven guitar": "distorted guitar",
    "distortion guitar": "distorted guitar", "double bass": "acoustic bass", "upright bass": "acoustic bass",
    "contrabass": "acoustic bass", "bass": "electric bass", "bass guitar": "electric bass",
    "fretless bass": "electric bass", "slap bass": "electric bass", "fiddle": "violin", "viola": "violin",
    "string section": "strings", "string ensemble": "strings", "orchestra": "strings", "voices": "choir",
    "voice": "choir", "vocals": "choir", "muted trumpet": "trumpet", "tuba": "trombone", "horn": "french horn",
    "brass section": "brass", "horns": "brass", "sax": "saxophone", "alto sax": "saxophone",
    "tenor sax": "saxophone", "bassoon": "oboe", "english horn": "oboe", "bagpipe": "oboe",
    "pan flute": "flute", "piccolo": "flute", "whistle": "recorder", "tin whistle": "recorder",
    "ocarina": "recorder", "vibes": "vibraphone", "celesta": "vibraphone", "xylophone": "marimba",
    "kalimba": "marimba", "steel drum": "marimba", "bells": "glockenspiel", "tubular bells": "glockenspiel",
    "dulcimer": "glockenspiel", "music box": "vibraphone", "sitar": "banjo", "koto": "banjo",
    "mandolin": "banjo", "ukulele": "nylon guitar", "synth": "synth lead", "synthesizer": "synth lead",
    "lead synth": "synth lead", "pad": "synth pad", "pads": "synth pad", "percussion": "drums", "drum": "drums",
    "drum kit": "drums", "drum machine": "drums", "drum set": "drums",
})  # fmt: skip

_FLATS = {"DB": "C#", "D#": "EB", "GB": "F#", "G#": "AB", "A#": "BB", "CB": "B", "FB": "E", "E#": "F", "B#": "C"}


def canonical_genre(name: str) -> str:
    """Return the table's genre for ``name`` (an alias, a plural, any case).

    Raises ValueError naming the nearest known genres.
    """
    return _canonical(name, GENRES, GENRE_ALIASES, "genre")


def canonical_instrument(name: str) -> str:
    """Return the table's instrument for ``name`` (an alias, a plural, any case).

    Raises ValueError naming the nearest known instruments.
    """
    return _canonical(name, INSTRUMENTS, INSTRUMENT_ALIASES, "instrument")


def canonical_key(name: str) -> str:
    """Return one of :data:`KEYS` for ``"Gm"``, ``"g minor"``, ``"Bb"``, ``"F sharp major"``, ``"A♭ minor"``...

    Raises ValueError for anything else.
    """
    text = " ".join(name.replace("♭", "b").replace("♯", "#").replace("-", " ").split())
    low = text.lower().replace(" sharp", "#").replace(" flat", "b")
    tonic, _, mode = low.partition(" ")
    if not mode and len(tonic) > 1:
        for suffix, kind in (
            ("minor", "minor"),
            ("major", "major"),
            ("min", "minor"),
            ("maj", "major"),
            ("m", "minor"),
        ):
            if tonic.endswith(suffix):
                # "Bm" is minor, "BM" is major: the one place where case carries meaning
                kind = "major" if suffix == "m" and text.endswith("M") else kind
                tonic, mode = tonic[: -len(suffix)], kind
                break
    mode = {"": "major", "m": "minor", "min": "minor", "minor": "minor", "maj": "major", "major": "major"}.get(
        mode, "?"
    )
    spelled = tonic.upper()
    spelled = _FLATS.get(spelled, spelled)
    for row in TONICS:
        if row.upper() == spelled and mode != "?":
            return f"{row} {mode}"
    raise ValueError(f"unknown key {name!r}: write a tonic and a mode, such as 'G minor', 'F# major' or 'Bbm'")


def suggest(name: str, known: Iterable[str], count: int = 3) -> list[str]:
    """Return up to ``count`` names out of ``known`` that look most like ``name``, best first."""
    return difflib.get_close_matches(name.lower(), list(known), n=count, cutoff=0.3)


def _canonical(name: str, table: tuple[str, ...], aliases: Mapping[str, str], what: str) -> str:
    low = " ".join(name.lower().replace("_", " ").split())
    for form in (low, low.replace("-", " "), low.removesuffix("s"), low.removesuffix("es")):
        if form in table:
            return form
        if form in aliases:
            return aliases[form]
    near = suggest(low, (*table, *aliases))
    near = list(dict.fromkeys(aliases.get(n, n) for n in near)) or list(table[:3])
    raise ValueError(f"unknown {what} {name!r}: did you mean {', '.join(near)}? All: {', '.join(table)}")
