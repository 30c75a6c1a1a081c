"""Tag and embed recordings, files and streams. Nothing here imports torch.

from helpers.tagger import AudioTagger

tagger = AudioTagger("mn10_as")
tagger.tag("recording.wav")["Speech"]  # score in [0, 1]
"""

from helpers.tagger.audio_tagger import AudioTagger
from helpers.tagger.events import Event, RecordingEvents
from helpers.tagger.frames import Frames
from helpers.tagger.results import Embedding, Failure, Tag, Tagging, Timeline
from helpers.tagger.rows import results_file
from helpers.tagger.streaming import StreamTagger

__all__ = [
    "AudioTagger",
    "Embedding",
    "Event",
    "Failure",
    "Frames",
    "RecordingEvents",
    "StreamTagger",
    "Tag",
    "Tagging",
    "Timeline",
    "results_file",
]
