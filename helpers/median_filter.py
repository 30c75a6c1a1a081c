"""The median filter along time that comes before events are read from the scores of frames."""

import numpy as np

from models.config import is_whole
from models.errors import UserError

MEDIAN_FRAMES = 9  # 360 ms at steps of 40 ms, for convolutional networks (Morocutti et al., EUSIPCO 2025)


def median_filter(scores: np.ndarray, median_frames: int = MEDIAN_FRAMES) -> np.ndarray:
    """(T, K) -> (T, K): the median over `median_frames` (odd) frames around each; at the ends the scores are mirrored.

    The first and the last frame are part of their mirror image: c b a | a b c ... x y z | z y x.
    """
    half = check_median(median_frames) // 2
    if half == 0 or len(scores) == 0:
        return np.array(scores)
    padded = np.pad(scores, ((half, half), (0, 0)), "symmetric")
    return np.median(np.lib.stride_tricks.sliding_window_view(padded, median_frames, axis=0), axis=-1).astype(scores.dtype)


def check_median(median_frames: int) -> int:
    """Return the length of a median filter; `UserError` unless it is odd."""
    if not is_whole(median_frames) or median_frames < 1 or median_frames % 2 == 0:
        raise UserError(f"the median filter has {median_frames!r:.50} frames; it must be an odd number, 1 to leave it out")
    return median_frames
