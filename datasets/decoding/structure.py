"""What the container of a recording says, against what is there: whether libsndfile reads all of it, and from what."""

from dataclasses import dataclass

from datasets.decoding.content import View


@dataclass(frozen=True)
class Structure:
    """How a recording is to be read. The default is what holds for a file about which nothing is known."""

    whole: bool = True  # libsndfile reads all of it; else the full decoder is needed
    view: View | None = None  # what the decoders read in place of the file
    links: tuple[View, ...] = ()  # recordings one behind the other, which the full decoder reads one by one
    has_length: bool = True  # libsndfile knows the length before it has read the end
    announced: int | None = None  # samples that the container says there are, where the decoders do not say it
    rate: int | None = None  # Hz, where the full decoder may be wrong about it
    part_there: float = 1.0  # which part of the sound that the container announces is there
    exact: bool = False  # a single sample less than announced is a loss; else formats round to packets
    end_checked: bool = False  # the bytes behind the sound have been looked at
    remarks: tuple[str, ...] = ()  # what is to be said even if the sound is read to its end
