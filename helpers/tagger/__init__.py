"""Tag and embed recordings, files and streams. Nothing here imports torch."""

from helpers.tagger.audio_tagger import AudioTagger

__all__ = ["AudioTagger"]
