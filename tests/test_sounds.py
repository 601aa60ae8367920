"""Sounds: the transform, exact return, completion, generation, files."""

import json
import math

import numpy as np
import pytest
from scipy.io import wavfile

from renorm.cli import main
from renorm.errors import DataError, RecipeError
from renorm.tokens.sounds.files import melody, read_wav, write_wav
from renorm.tokens.sounds.lapped import lapped, unlapped
from renorm.tokens.sounds.sound_model import SoundModel, bands_of


@pytest.fixture(scope="module")
def tune():
    return melody(note=1024, times=3)


@pytest.mark.parametrize(("samples", "size"), [(1, 1), (7, 4), (1000, 64), (1024, 256), (100, 256)])
def test_the_transform_is_orthonormal(samples, size):
    draw = np.random.default_rng(samples)
    x, y = draw.standard_normal((2, samples))
    a, b = lapped(x, size), lapped(y, size)
    assert (a * b).sum() == pytest.approx(x @ y, abs=1e-9)
    np.testing.assert_allclose(unlapped(a, samples), x, atol=1e-12)


def test_a_tone_has_its_place():
    """Block t, amplitude k: (k + 1/2) / 2N of the rate."""
    size, k = 64, 10
    x = np.cos(2 * np.pi * (k + 0.5) / (2 * size) * np.arange(64 * size) + 1.0)
    power = (lapped(x, size)[2:-2] ** 2).mean(axis=0)
    assert power.argmax() == k
    assert power[k - 1 : k + 2].sum() > 0.95 * power.sum()


def test_a_sound_comes_back_to_the_step(tune):
    model = SoundModel.fit(tune)
    assert abs(model.regenerated() - tune).max() < 1e-3
    assert len(model.tower.levels) == 3
    blocks = len(tune) // 256 + 1
    assert model.states[-1] < blocks - 7  # the tune comes again, and has the same states


def test_samples_of_16_bits_come_back_as_they_were():
    whole = np.random.default_rng(0).integers(-(2**15), 2**15, size=6000)
    model = SoundModel.fit(whole / 2**15)
    assert (np.round(model.regenerated() * 2**15) == whole).all()


def test_few_tokens_lose_something(tune):
    exact, rough = SoundModel.fit(tune), SoundModel.fit(tune, tokens=8)
    assert max(len(words) for words in rough.words) == 8 < max(len(words) for words in exact.words)
    errors = [((model.regenerated() - tune) ** 2).sum() for model in (exact, rough)]
    assert errors[0] < 1e-6 * (tune**2).sum() < errors[1] < 0.5 * (tune**2).sum()


def test_low_bands_tell_high_ones(tune):
    model = SoundModel.fit(tune)
    known = np.zeros(model.tokens.shape, bool)
    known[:, :4] = True
    found = model.completed(known)
    assert ((found - tune) ** 2).sum() < 0.01 * (tune**2).sum()


def test_what_is_generated_was_heard(tune):
    model = SoundModel.fit(tune)
    found = model.generated(64, np.random.default_rng(0))
    assert len(found) == 64 * 256
    heard = lapped(tune, 256)
    away = [abs(heard - row).max(axis=1).min() for row in lapped(found, 256)[1:-2]]
    assert np.mean(np.array(away) < 1e-3) > 0.9


def test_bands():
    assert bands_of(8, 8) == tuple(range(9))
    assert bands_of(256, 1) == (0, 256)
    for size in (8, 17, 64, 256):
        edges = bands_of(size, 8)
        assert edges[0] == 0
        assert edges[-1] == size
        assert (np.diff(edges) >= 1).all()
    with pytest.raises(RecipeError, match="8 bands at most"):
        bands_of(8, 16)


def test_files(tmp_path, tune):
    write_wav(tmp_path / "a.wav", tune, 8000)
    found, rate = read_wav(tmp_path / "a.wav")
    assert rate == 8000
    assert abs(found - tune).max() <= 2**-16
    loud = np.array([-1.0, 1 - 2**-15, 0.7, -(2**-15)]) * 1.0
    loud[2] = round(0.7 * 2**15) / 2**15
    write_wav(tmp_path / "loud.wav", loud, 8000)
    assert read_wav(tmp_path / "loud.wav")[0].tolist() == loud.tolist()
    both = np.stack([tune, -tune], axis=1).astype(np.float32)
    wavfile.write(tmp_path / "stereo.wav", 8000, both)
    assert abs(read_wav(tmp_path / "stereo.wav")[0]).max() == 0
    wavfile.write(tmp_path / "bytes.wav", 8000, np.array([0, 128, 255], np.uint8))
    assert read_wav(tmp_path / "bytes.wav")[0].tolist() == [-1, 0, 127 / 128]


def test_wrong_sounds(tmp_path, tune):
    with pytest.raises(DataError, match="there is no sound"):
        read_wav(tmp_path / "none.wav")
    (tmp_path / "text.wav").write_text("hello")
    with pytest.raises(DataError, match="no WAV file"):
        read_wav(tmp_path / "text.wav")
    with pytest.raises(DataError, match="all 4096 samples are silent"):
        SoundModel.fit(np.zeros(4096))
    with pytest.raises(DataError, match="finite"):
        SoundModel.fit(np.full(4096, math.nan))
    with pytest.raises(DataError, match="take smaller blocks or fewer bands"):
        SoundModel.fit(tune[:1000])
    for options, why in [
        ({"bands": 3}, "power of 2"),
        ({"tokens": 1}, "tokens >= 2"),
        ({"size": 0}, "bands at most"),
    ]:
        with pytest.raises(RecipeError, match=why):
            SoundModel.fit(tune, **options)
    model = SoundModel.fit(tune)
    assert len(model.completed(np.ones((3, 8), bool))) == 3 * 256
    for shape in ((3, 7), (0, 8), (10_000, 8)):
        with pytest.raises(DataError, match="tokens"):
            model.completed(np.ones(shape, bool))
    with pytest.raises(DataError, match="take smaller blocks"):
        SoundModel.fit(tune, size=2**16)
    with pytest.raises(RecipeError, match="blocks >= 1"):
        model.generated(0, np.random.default_rng(0))
    with pytest.raises(RecipeError, match=">= 1"):
        melody(times=0)


def test_the_command(tmp_path, monkeypatch, capsys, tune):
    monkeypatch.chdir(tmp_path)
    write_wav(tmp_path / "tune.wav", tune, 8000)
    assert main(["sound", "tune.wav", "--seconds", "1", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    folder = tmp_path / "runs" / "sound-tune"
    assert sorted(p.name for p in folder.iterdir()) == [
        "completed.wav",
        "generated.wav",
        "regenerated.wav",
        "result.json",
    ]
    assert told["snr_db"] > 60
    assert len(read_wav(folder / "generated.wav")[0]) == 31 * 256


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["none.wav"], "there is no sound none.wav"),
        (["melody", "--seconds", "0"], "--seconds must be > 0"),
        (["melody", "--seconds", "inf"], "--seconds must be > 0 and finite"),
        (["melody", "--bands", "5"], "power of 2"),
    ],
)
def test_wrong_options(options, why, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["sound", *options]) == 2
    assert why in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
