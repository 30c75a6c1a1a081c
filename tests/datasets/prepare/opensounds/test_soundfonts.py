"""MIDI files, the presets of a soundfont, and phrases."""

import struct

from datasets.prepare.opensounds import soundfonts
from datasets.prepare.opensounds.soundfonts import Note
from datasets.prepare.opensounds.tables import Package, presets


def test_midi_file_ends_a_note_before_the_next_of_the_same_tick():
    notes = [Note(0.0, 0.5, 60, 100), Note(0.5, 0.5, 60, 90)]
    score = soundfonts.midi_file(notes, bank=8, program=4, channel=1)
    assert score[:14] == b"MThd" + struct.pack(">IHHH", 6, 0, 1, 480)
    track = score[22:]
    assert struct.unpack(">I", score[18:22])[0] == len(track)
    half = bytes([0x83, 0x60])  # 480 ticks as a variable-length quantity: 3 * 128 + 96
    assert track == (
        bytes([0, 0xB1, 0, 8, 0, 0xC1, 4])
        + (bytes([0, 0x91, 60, 100]) + half + bytes([0x81, 60, 0]))
        + (bytes([0, 0x91, 60, 90]) + half + bytes([0x81, 60, 0]))
        + (bytes([0x87, 0x40]) + b"\xff\x2f\x00")
    )


def test_font_presets():
    records = [(b"Piano", 0, 0), (b"Kit", 8, 128), (b"EOP", 0, 0)]
    content = b"".join(struct.pack("<20sHH14s", name, program, bank, b"") for name, program, bank in records)
    font = b"RIFF....sfbkLIST....pdtaphdr" + struct.pack("<I", len(content)) + content + b"pbag"
    assert soundfonts.font_presets(font) == {(0, 0), (128, 8)}


def test_phrases_fit_their_slots():
    package = Package("font", "train", "CC0", "permissive", "soundfont", segments=2, amount=8)
    for preset in presets():
        if preset.style == "drum":
            continue
        for phrase in soundfonts._instrument_phrases(preset, package):
            assert phrase.notes
            for note in phrase.notes:
                assert 0 < note.seconds and note.start + note.seconds <= 3.0
                assert preset.low <= note.pitch <= preset.high and 0 < note.velocity < 128
