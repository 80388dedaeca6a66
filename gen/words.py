"""The words a sentence about music is made of, beyond the names of genres and instruments: pace, mood, spelling."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

#: Word -> the part of a genre's tempo range it means (0 = its slowest, 1 = its fastest).
PACES: Mapping[str, tuple[float, float]] = MappingProxyType({
    "very slow": (0.0, 0.1), "extremely slow": (0.0, 0.05), "slow": (0.0, 0.25), "slowly": (0.0, 0.25),
    "downtempo": (0.0, 0.3), "down tempo": (0.0, 0.3), "sleepy": (0.0, 0.2), "dreamy": (0.05, 0.35),
    "relaxed": (0.1, 0.4), "relaxing": (0.1, 0.4), "laid back": (0.1, 0.4), "chill": (0.1, 0.4),
    "calm": (0.05, 0.35), "gentle": (0.1, 0.4), "quiet": (0.1, 0.4), "mellow": (0.15, 0.45),
    "medium": (0.4, 0.6), "medium tempo": (0.4, 0.6), "mid tempo": (0.4, 0.6), "midtempo": (0.4, 0.6),
    "moderate": (0.4, 0.6), "moderately": (0.4, 0.6), "walking pace": (0.3, 0.5), "not too fast": (0.35, 0.55),
    "not too slow": (0.45, 0.65), "not so fast": (0.35, 0.55), "upbeat": (0.6, 0.85), "up beat": (0.6, 0.85),
    "lively": (0.65, 0.9), "energetic": (0.7, 0.95), "bouncy": (0.6, 0.85), "driving": (0.65, 0.9),
    "uptempo": (0.7, 0.95), "up tempo": (0.7, 0.95), "fast": (0.8, 1.0), "quick": (0.75, 1.0),
    "rapid": (0.8, 1.0), "frantic": (0.9, 1.0), "furious": (0.9, 1.0), "breakneck": (0.95, 1.0),
    "very fast": (0.92, 1.0), "really fast": (0.92, 1.0),
})  # fmt: skip

#: Italian tempo terms, in quarter notes per minute (the customary metronome ranges).
TERMS: Mapping[str, tuple[float, float]] = MappingProxyType({
    "grave": (40, 46), "larghissimo": (40, 44), "largo": (44, 60), "lento": (48, 64), "larghetto": (60, 66),
    "adagio": (60, 76), "adagietto": (68, 78), "andante": (76, 104), "andantino": (80, 108),
    "moderato": (104, 118), "allegretto": (112, 124), "allegro": (120, 156), "vivace": (150, 176),
    "vivo": (150, 176), "presto": (168, 200), "prestissimo": (200, 230),
})  # fmt: skip

#: Mood -> mode, used only when the sentence names no key.
MOODS: Mapping[str, str] = MappingProxyType({
    "sad": "minor", "melancholic": "minor", "melancholy": "minor", "dark": "minor", "gloomy": "minor",
    "mournful": "minor", "tragic": "minor", "sombre": "minor", "somber": "minor", "ominous": "minor",
    "haunting": "minor", "mysterious": "minor", "happy": "major", "cheerful": "major", "joyful": "major",
    "sunny": "major", "bright": "major", "merry": "major", "triumphant": "major", "playful": "major",
})  # fmt: skip

#: Church modes and variants -> the nearer of the two modes a key can have here.
MODES: Mapping[str, str] = MappingProxyType({
    "major": "major", "maj": "major", "ionian": "major", "lydian": "major", "mixolydian": "major",
    "minor": "minor", "min": "minor", "aeolian": "minor", "dorian": "minor", "phrygian": "minor",
    "locrian": "minor", "harmonic minor": "minor", "melodic minor": "minor", "natural minor": "minor",
})  # fmt: skip

#: Metre in words -> beats per bar.
METRES: Mapping[str, int] = MappingProxyType({
    "waltz time": 3, "triple time": 3, "triple metre": 3, "triple meter": 3, "three four": 3, "three quarter": 3,
    "common time": 4, "four four": 4, "duple time": 2, "cut time": 2, "two four": 2, "five four": 5,
})  # fmt: skip

#: Phrases that name an instrument more loosely than the shared table does.
LOOSE_INSTRUMENTS: Mapping[str, str] = MappingProxyType({
    "bass clarinet": "clarinet", "bass drum": "drums", "bass flute": "flute", "bass trombone": "trombone",
    "bass line": "electric bass", "bassline": "electric bass", "walking bass": "acoustic bass",
    "string bass": "acoustic bass", "string quartet": "strings", "string orchestra": "strings",
    "string trio": "strings", "upright piano": "acoustic piano", "pianoforte": "acoustic piano",
    "mouth organ": "harmonica", "piano accordion": "accordion", "pipe organ": "organ", "wurlitzer": "electric piano",
    "slide guitar": "steel guitar", "lap steel": "steel guitar", "pedal steel": "steel guitar",
    "lute": "nylon guitar", "oud": "nylon guitar", "flamenco guitar": "nylon guitar", "moog": "synth lead",
    "cor anglais": "oboe", "soprano sax": "saxophone", "baritone sax": "saxophone", "soprano saxophone": "saxophone",
    "alto saxophone": "saxophone", "tenor saxophone": "saxophone", "baritone saxophone": "saxophone",
    "flugelhorn": "trumpet", "cornet": "trumpet", "euphonium": "trombone", "snare": "drums", "hi hat": "drums",
    "hihat": "drums", "cymbal": "drums", "conga": "drums", "bongo": "drums", "timpani": "drums",
    "tambourine": "drums", "drumbeat": "drums", "drum beat": "drums", "drumming": "drums", "a cappella": "choir",
    "a capella": "choir", "choral": "choir", "vocal": "choir", "singing": "choir", "brass band": "brass",
    "pan pipes": "flute", "panpipe": "flute", "accordian": "accordion", "saxaphone": "saxophone",
    "saxofone": "saxophone", "saxophon": "saxophone", "clarinette": "clarinet", "xylofone": "marimba",
    "vibraphon": "vibraphone", "guitarr": "electric guitar", "violine": "violin", "trumpette": "trumpet",
})  # fmt: skip

#: Phrases that name a genre more loosely, and common slips of the pen.
LOOSE_GENRES: Mapping[str, str] = MappingProxyType({
    "bosa nova": "bossa nova", "bossa novas": "bossa nova", "symphonic": "classical", "symphony": "classical",
    "chamber music": "classical", "classic": "classical", "raggae": "reggae", "regae": "reggae", "dub": "reggae",
    "jazzy": "jazz", "funky": "funk", "bluesy": "blues", "rocking": "rock", "folky": "folk", "swinging": "swing",
    "soulful": "soul", "poppy": "pop", "hip hop beat": "hip hop", "lofi": "hip hop", "lo fi": "hip hop",
    "synth pop": "pop", "synthpop": "pop", "electronica": "electronic", "electro": "electronic",
    "rock ballad": "ballad", "pop ballad": "ballad", "power ballad": "ballad", "folk rock": "rock",
    "pop rock": "rock", "blues rock": "rock", "country rock": "country", "latin jazz": "latin",
    "jazz waltz": "waltz", "smooth jazz": "jazz", "cool jazz": "jazz", "jazz funk": "funk",
    "bossa nova jazz": "bossa nova", "rockabilly": "rock", "surf rock": "rock", "indie": "rock",
})  # fmt: skip

#: Adjectives that are genres only when nothing else in the sentence is.
WEAK_GENRES: frozenset[str] = frozenset({
    "jazzy", "funky", "bluesy", "rocking", "folky", "swinging", "soulful", "poppy", "classic", "electro", "dance",
    "house", "reel", "western", "swing", "latin", "orchestral",
})  # fmt: skip
