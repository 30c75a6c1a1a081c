"""The open corpus: AudioSet-labelled recordings from Debian packages."""
