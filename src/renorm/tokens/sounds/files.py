"""Sounds as WAV files, and one that needs no file."""

from pathlib import Path

import numpy as np
from jaxtyping import Float64, Shaped
from scipy.io import wavfile

from renorm.errors import DataError, RecipeError

__all__ = ["melody", "read_wav", "write_wav"]

TUNE = (0, 4, 7, 12, 7, 4, 2, 5, 9, 5, 2, -1, 0, 4, 7, 4)  # semitones above the first
LOWEST = 220.0  # hertz
PARTIALS = (1.0, 0.5, 0.25, 0.12)


def read_wav(path: Path) -> tuple[Float64[np.ndarray, " samples"], int]:
    """Samples from -1 to 1, the mean of all channels, and how many there are in a second.

    Raises:
        DataError: If there is no such file, or it is no WAV file that can be read, or empty.
    """
    if not path.is_file():
        raise DataError(f"there is no sound {path}")
    try:
        rate, samples = wavfile.read(path)
    except MemoryError:
        raise
    except Exception as error:  # a damaged file may raise anything
        raise DataError(f"{path} is no WAV file that can be read ({error})") from None
    if not samples.size or rate < 1:
        raise DataError(f"{path} holds {samples.size} samples, {rate} in a second")
    return _scaled(samples), int(rate)


def write_wav(path: Path, sound: Float64[np.ndarray, " samples"], rate: int) -> None:
    """A WAV file of 16 bits; what is louder than 1 is cut."""
    wavfile.write(path, rate, np.round(sound * 2**15).clip(-(2**15), 2**15 - 1).astype(np.int16))


def melody(
    rate: int = 8000, note: int = 2048, times: int = 4, *, tune: tuple[int, ...] = TUNE
) -> Float64[np.ndarray, " samples"]:
    """Plucked notes, again and again.

    Args:
        rate: Samples in a second.
        note: Samples of a note.
        times: How often the tune is played.
        tune: Semitones above 220 hertz.

    Raises:
        RecipeError: If a number is below 1, or there is no note.

    Example:
        >>> sound = melody(times=2)
        >>> len(sound), bool(abs(sound).max() <= 1), bool((sound[: len(sound) // 2] == sound[len(sound) // 2 :]).all())
        (65536, True, True)
    """
    if min(rate, note, times, len(tune)) < 1:
        raise RecipeError(f"a melody needs rate, note, times and notes >= 1, got {rate}, {note}, {times}, {len(tune)}")
    time = np.arange(note) / rate
    fade = np.exp(-6 * np.arange(note) / note) * np.sin(np.pi * (np.arange(note) + 0.5) / note) ** 0.25
    notes = []
    for semitone in tune:
        pitch = LOWEST * 2 ** (semitone / 12)
        tone = sum(loud * np.sin(2 * np.pi * pitch * (i + 1) * time) for i, loud in enumerate(PARTIALS))
        notes.append(0.5 * fade * tone)
    return np.tile(np.concatenate(notes), times)


def _scaled(samples: Shaped[np.ndarray, "..."]) -> np.ndarray:
    mono = samples.astype(np.float64).reshape(len(samples), -1).mean(axis=1)
    if samples.dtype == np.uint8:
        return (mono - 128) / 128
    return mono / -float(np.iinfo(samples.dtype).min) if np.issubdtype(samples.dtype, np.integer) else mono
