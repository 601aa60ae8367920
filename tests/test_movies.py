"""Movies: files, exact return, completion, generation, and packing."""

import json
import math
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from renorm.cli import main
from renorm.errors import DataError, RecipeError
from renorm.tokens.movies.frames import Palette, read_movie, write_gif
from renorm.tokens.movies.movie_file import HEADER, pack_movie, unpack_movie
from renorm.tokens.movies.movie_model import MovieModel
from renorm.tokens.movies.neighbours import choose_offsets
from renorm.tokens.movies.ranked_code import decode_tokens, encode_tokens
from renorm.tokens.movies.shapes import two_shapes


@pytest.fixture(scope="module")
def shapes():
    return two_shapes(24, 24)


def test_a_movie_comes_back_from_its_highest_states(shapes):
    model = MovieModel.fit(shapes)
    assert model.states[-1] < len(shapes)
    assert (model.regenerated() == shapes).all()


def test_a_movie_whose_length_is_no_multiple_comes_back():
    movie = np.random.default_rng(0).integers(3, size=(13, 6, 5, 1)).astype(np.uint8)
    model = MovieModel.fit(movie, edges=(3, 2))
    assert model.tower.spans[-1] == 2
    assert (model.regenerated() == movie).all()


def test_a_quadrant_tells_the_rest(shapes):
    model = MovieModel.fit(shapes)
    known = np.zeros(shapes.shape[:3], bool)
    known[:, :12, :12] = True
    veiled = np.where(known[..., None], shapes, 7).astype(np.uint8)  # the hidden part is not looked at
    assert (model.completed(veiled, known) == shapes).mean() > 0.99
    drawn = model.completed(veiled, known, np.random.default_rng(0))
    assert (drawn[known] == shapes[known]).all()


def test_what_is_generated_was_seen_and_follows(shapes):
    model = MovieModel.fit(shapes)
    frames = model.generated(40, np.random.default_rng(1))
    marks = [frame.tobytes() for frame in shapes]
    found = [marks.index(frame.tobytes()) for frame in frames]  # each is a frame of the movie
    assert np.mean(np.diff(found) == 1) > 0.6


def test_packed_and_unpacked(shapes):
    data = pack_movie(shapes)
    assert (unpack_movie(data) == shapes).all()
    tokens = Palette.of(shapes).tokens(shapes).astype(np.uint8)
    assert len(data) < sum(len(zlib.compress(frame.tobytes(), 9)) for frame in tokens) / 2


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.tuples(st.integers(1, 5), st.integers(1, 7), st.integers(1, 7)),
    st.sampled_from([1, 2, 3, 256]),
    st.sampled_from([1, 3]),
)
def test_any_movie_is_packed(seed, shape, colours, channels):
    movie = np.random.default_rng(seed).integers(colours, size=(*shape, channels)).astype(np.uint8)
    assert (unpack_movie(pack_movie(movie)) == movie).all()


def test_bits_are_those_of_the_decisions():
    """One token, two colours, no neighbours: at first a bit each way, then as the counts say."""
    tokens = np.array([[[0, 0, 0, 0]]])
    words, bits = encode_tokens(tokens, [], 2)
    by_hand = 1 - sum(math.log2(share) for share in (1 / 2, 1 / 2, 3 / 4))  # new; yes, by counts 1, 2 and 3
    assert bits == pytest.approx(by_hand, abs=1e-5)
    assert len(words) <= 8
    assert (decode_tokens(words, (1, 1, 4), [], 2) == tokens).all()


def test_noise_costs_what_it_is():
    """Fair bits cannot be told in less, and take little more."""
    noise = np.random.default_rng(0).integers(2, size=(20, 20, 20))
    _, bits = encode_tokens(noise, choose_offsets(noise, np.random.default_rng(0)), 2)
    assert noise.size < bits < 1.02 * noise.size


def test_files(tmp_path, shapes):
    grey = shapes[..., :1]
    np.savez(tmp_path / "a.npz", movie=shapes)
    np.save(tmp_path / "a.npy", grey[..., 0])
    write_gif(tmp_path / "a.gif", shapes)
    (tmp_path / "frames").mkdir()
    for i, frame in enumerate(shapes):
        Image.fromarray(frame).save(tmp_path / "frames" / f"{i:03}.png")
    (tmp_path / "frames" / "notes.txt").write_text("not a picture")
    for name in ("a.npz", "a.gif", "frames"):
        assert (read_movie(tmp_path / name) == shapes).all(), name
    assert (read_movie(tmp_path / "a.npy") == grey).all()
    write_gif(tmp_path / "grey.gif", grey, scale=2)
    assert (read_movie(tmp_path / "grey.gif") == grey.repeat(2, axis=1).repeat(2, axis=2)).all()


def test_equal_frames_are_kept(tmp_path, shapes):
    movie = shapes[[0, 0, 0, 1, 2, 2]]
    write_gif(tmp_path / "slow.gif", movie)
    assert (read_movie(tmp_path / "slow.gif") == movie).all()


def test_what_is_transparent_is_white(tmp_path):
    Image.fromarray(np.array([[[9, 9, 9, 0], [9, 9, 9, 255]]], np.uint8)).save(tmp_path / "clear.png")
    assert read_movie(tmp_path / "clear.png")[0, :, :, 0].tolist() == [[255, 9]]


@pytest.mark.parametrize("name", ["a.gif", "a.png"])
def test_a_damaged_picture_is_told_or_read(tmp_path, shapes, name):
    """Whatever a picture's reader may raise, people see one error."""
    path = tmp_path / name
    frames = [Image.fromarray(frame) for frame in shapes[:4]]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    data, draw, told = path.read_bytes(), np.random.default_rng(0), 0
    for _ in range(150):
        bad = bytearray(data)
        for place in draw.integers(len(data), size=3):
            bad[place] = draw.integers(256)
        path.write_bytes(bytes(bad[: draw.integers(1, len(bad) + 1)]))
        try:
            assert read_movie(path).dtype == np.uint8
        except DataError:
            told += 1
    assert told > 0


def test_grey_pixels_are_found_among_colours():
    colours = Palette.of(np.array([[[[200, 0, 0], [200, 200, 200]]]], np.uint8))
    assert colours.tokens(np.array([[[[200]]]], np.uint8)).tolist() == [[[1]]]
    with pytest.raises(DataError, match="1 channels, the movie 3"):
        Palette.of(np.array([[[[0], [9]]]], np.uint8)).tokens(np.array([[[[9, 0, 0]]]], np.uint8))


def test_wrong_files(tmp_path):
    with pytest.raises(DataError, match="there is no movie"):
        read_movie(tmp_path / "none.gif")
    with pytest.raises(DataError, match="there is no movie"):
        read_movie(tmp_path / "nowhere.npy")
    (tmp_path / "text.gif").write_text("hello")
    with pytest.raises(DataError, match="no picture or movie"):
        read_movie(tmp_path / "text.gif")
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(DataError, match="truncated, damaged or no NumPy file"):
        read_movie(tmp_path / "text.npz")
    np.save(tmp_path / "real.npy", np.zeros((2, 3, 3)))
    with pytest.raises(DataError, match="must hold bytes"):
        read_movie(tmp_path / "real.npy")
    (tmp_path / "none.npy").touch()
    (tmp_path / "zip.npz").write_bytes(b"PK\x03\x04 and no more")
    for name in ("none.npy", "zip.npz"):
        with pytest.raises(DataError, match="truncated, damaged or no NumPy file"):
            read_movie(tmp_path / name)
    Image.fromarray(np.full((2, 2), 4000, np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(DataError, match="more than 8 bits"):
        read_movie(tmp_path / "deep.png")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no picture"):
        read_movie(tmp_path / "empty")
    for i in (1, 2):
        Image.new("L", (i, 2)).save(tmp_path / "empty" / f"{i}.png")
    with pytest.raises(DataError, match="one size"):
        read_movie(tmp_path / "empty")
    with pytest.raises(RecipeError, match="one frame or more"):
        write_gif(tmp_path / "no.gif", np.zeros((0, 2, 2, 1), np.uint8))


def test_a_changed_file_is_told(shapes):
    data = pack_movie(shapes)
    for place in range(0, len(data), 7):
        bad = bytearray(data)
        bad[place] ^= 0x10
        with pytest.raises(DataError):
            unpack_movie(bytes(bad))
    for cut in (0, 3, 20, HEADER.size, len(data) - 1):
        with pytest.raises(DataError):
            unpack_movie(data[:cut])
    with pytest.raises(DataError):
        unpack_movie(data + b"x")
    wrong = bytearray(data)
    struct.pack_into("<I", wrong, 8, 2**31)  # frames, far more than there are
    with pytest.raises(DataError, match="CRC-32"):
        unpack_movie(bytes(wrong))


def test_wrong_movies(shapes):
    with pytest.raises(DataError, match="3 levels, which need 8 frames or more, got 7; take larger blocks"):
        MovieModel.fit(two_shapes(7, 64))
    model = MovieModel.fit(shapes)
    with pytest.raises(DataError, match="frames of"):
        model.completed(two_shapes(8, 16), np.ones((8, 16, 16), bool))
    with pytest.raises(DataError, match="colours that are not among the 3"):
        model.completed(np.full_like(shapes, 5), np.ones(shapes.shape[:3], bool))
    with pytest.raises(DataError, match="a movie must hold bytes"):
        pack_movie(np.zeros((0, 4, 4, 1), np.uint8))
    with pytest.raises(DataError, match="a movie must hold bytes"):
        pack_movie(np.zeros((2, 4, 4, 4), np.uint8))
    with pytest.raises(RecipeError, match="an edge >= 8"):
        two_shapes(3, 4)


def test_the_command(tmp_path, monkeypatch, capsys, shapes):
    monkeypatch.chdir(tmp_path)
    np.savez("small.npz", movie=shapes)
    assert main(["movie", "small.npz", "--json", "--frames", "9"]) == 0
    told = json.loads(capsys.readouterr().out)
    folder = tmp_path / "runs" / "movie-small"
    assert told["exact"] is True
    assert told["bytes"] == (folder / "movie.rnv").stat().st_size
    assert sorted(p.name for p in folder.iterdir()) == [
        "completed.gif",
        "generated.gif",
        "movie.rnv",
        "regenerated.gif",
        "result.json",
    ]
    assert (read_movie(folder / "regenerated.gif")[:, ::10, ::10] == shapes).all()
    assert len(read_movie(folder / "generated.gif")) == 9
    assert main(["movie", str(folder / "movie.rnv"), "--quiet"]) == 0
    with np.load(folder / "movie.npz") as arrays:
        assert (arrays["movie"] == shapes).all()
    assert main(["movie", str(folder / "movie.rnv"), "--out", "back.gif", "--quiet"]) == 0
    assert (read_movie(tmp_path / "back.gif") == shapes).all()


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["none.gif"], "there is no movie none.gif"),
        (["shapes", "--frames", "0"], "--frames must be >= 1"),
        (["shapes", "--edges", "8,x"], "--edges are whole numbers"),
        (["shapes", "--edges", "1"], "the last edge >= 2"),
        (["foreign.rnv"], "another kind of file"),
        (["foreign.rnv", "--out", "x.avi"], "--out must end in .npz or .gif"),
        (["none.rnv"], "cannot read or write none.rnv"),
    ],
)
def test_wrong_options(options, why, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "foreign.rnv").write_bytes(b"GIF89a")
    assert main(["movie", *options, "--quiet"]) == 2
    assert why in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "runs").exists()
