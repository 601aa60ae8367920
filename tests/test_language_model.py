"""Language models in the layout of Hugging Face, read through transformers: tiny ones, of random weights."""

import json
import shutil

import pytest
import torch

from renorm.cli import main
from renorm.data.proteins.features.kept import features_of
from renorm.data.proteins.features.language_model import LanguageModel
from renorm.data.proteins.sequence import AMINO_ACIDS
from renorm.errors import DataError

transformers = pytest.importorskip("transformers", reason="needs transformers: pip install 'renorm[lm]'")

ESM_LETTERS = ["<cls>", "<pad>", "<eos>", "<unk>", *"LAGVSERTIDPKQNFYMHWCXBUZO", ".", "-", "<null_1>", "<mask>"]
SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
TEXTS = ["MKTAYIAKQRQISFVKSHFSRQ", "GGX", "ACDEFGHIKLMNPQRSTVWY", "W"]


@pytest.fixture(autouse=True)
def still():
    """transformers draws weights with torch's own generator, and speaks as it writes."""
    transformers.utils.logging.set_verbosity_error()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def esm(folder, **changes):
    """A folder as ESM-2 has it, with a head for masked letters that features do not need."""
    config = transformers.EsmConfig(
        vocab_size=len(ESM_LETTERS), pad_token_id=1, mask_token_id=32, max_position_embeddings=64, token_dropout=True,
        **{"position_embedding_type": "rotary", **SMALL, **changes},
    )  # fmt: skip
    transformers.EsmForMaskedLM(config).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(ESM_LETTERS))
    transformers.EsmTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    return folder


@pytest.fixture
def folder(tmp_path):
    return esm(tmp_path / "esm")


def directly(folder, text):
    """All hidden states of one sequence, as transformers gives them, with the special tokens at both ends."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    network = transformers.EsmModel.from_pretrained(folder, add_pooling_layer=False).eval()
    with torch.no_grad():
        out = network(**tokenizer(text, return_tensors="pt"), output_hidden_states=True)
    return out.last_hidden_state[0], [h[0] for h in out.hidden_states]


def test_features_are_the_last_hidden_state_without_special_tokens(folder):
    last, states = directly(folder, TEXTS[0])
    assert len(last) == len(TEXTS[0]) + 2
    found = LanguageModel(folder)([TEXTS[0]])[0]
    assert found.dtype == torch.float32
    assert torch.equal(found, last[1:-1])
    for layer in (0, 1, -2):
        assert torch.equal(LanguageModel(folder, layer=layer)([TEXTS[0]])[0], states[layer][1:-1])
    assert torch.equal(LanguageModel(folder, layer=2)([TEXTS[0]])[0], last[1:-1])


def test_the_company_of_a_sequence_changes_nothing(folder):
    model = LanguageModel(folder)
    together = model(TEXTS)
    assert [len(x) for x in together] == [len(text) for text in TEXTS]
    for text, x in zip(TEXTS, together, strict=True):
        torch.testing.assert_close(x, model([text])[0], rtol=0, atol=1e-5)
    several = [features_of(model, TEXTS, batch=batch, dtype=torch.float32) for batch in (1, 30, 4096)]
    for other in several[1:]:
        for a, b in zip(several[0], other, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-5)


def test_what_is_kept_is_what_was_computed(folder, tmp_path):
    first = features_of(LanguageModel(folder), TEXTS, cache=tmp_path / "cache")
    model = LanguageModel(folder)
    again = features_of(model, TEXTS, cache=tmp_path / "cache")
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert "_loaded" not in vars(model), "kept features need no model"


def test_reading_a_model_draws_nothing_and_says_nothing(folder, capsys):
    before = torch.random.get_rng_state()
    LanguageModel(folder)(["MKV"])
    assert torch.equal(before, torch.random.get_rng_state())
    said = capsys.readouterr()
    assert said.out + said.err == ""


def test_half_precision_weights_are_read_in_float32(folder):
    transformers.EsmForMaskedLM.from_pretrained(folder).to(torch.bfloat16).save_pretrained(folder)
    assert LanguageModel(folder)(["MKV"])[0].dtype == torch.float32


def test_a_tokenizer_that_wants_blanks_has_them(tmp_path):
    """As that of ProtBert, whose words are letters."""
    folder = tmp_path / "bert"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *AMINO_ACIDS, "X"]
    config = transformers.BertConfig(vocab_size=len(words), max_position_embeddings=24, **SMALL)
    network = transformers.BertModel(config)
    network.save_pretrained(folder)
    tokenizer = transformers.BertTokenizer({word: i for i, word in enumerate(words)}, do_lower_case=False)
    tokenizer.save_pretrained(folder)
    found = LanguageModel(folder)(["MKVLA", "GG"])
    ids = torch.tensor([[2, *(words.index(letter) for letter in "MKVLA"), 3]])
    with torch.no_grad():
        told = network.eval()(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state[0]
    torch.testing.assert_close(found[0], told[1:-1], rtol=0, atol=1e-5)
    assert found[1].shape == (2, 16)
    with pytest.raises(DataError, match="reads 24 tokens at most, got 25"):
        LanguageModel(folder)(["M" * 23])


def letters_tokenizer(**special):
    """One token a letter, and an end mark, without blanks."""
    tokenizers = pytest.importorskip("tokenizers")
    vocabulary = {word: i for i, word in enumerate(["<pad>", "</s>", "<unk>", *AMINO_ACIDS])}
    raw = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<unk>"))
    raw.pre_tokenizer = tokenizers.pre_tokenizers.Split("", "isolated")
    raw.post_processor = tokenizers.processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return transformers.PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="<unk>", **special)


def test_of_an_encoder_and_decoder_the_encoder_is_read(tmp_path):
    """As ProtT5, whose sequences end in a mark and begin with none."""
    folder = tmp_path / "t5"
    config = transformers.T5Config(vocab_size=23, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2)
    network = transformers.T5ForConditionalGeneration(config)
    network.save_pretrained(folder)
    letters_tokenizer(pad_token="<pad>", eos_token="</s>").save_pretrained(folder)
    ids = torch.tensor([[*(3 + AMINO_ACIDS.index(letter) for letter in "MKVLA"), 1]])
    with torch.no_grad():
        told = network.eval().encoder(input_ids=ids).last_hidden_state[0]
    found = LanguageModel(folder)(["MKVLA", "GGX"])
    torch.testing.assert_close(found[0], told[:-1], rtol=0, atol=1e-5)
    assert found[1].shape == (3, 16), "a letter that it does not know is a residue all the same"


def test_learned_positions_have_an_end(tmp_path):
    model = LanguageModel(esm(tmp_path / "esm1b", position_embedding_type="absolute"))
    assert model(["M" * 60])[0].shape == (60, 16)
    with pytest.raises(DataError, match="reads 62 tokens at most, got 63"):
        model(["M" * 61])


def lack_a_tokenizer(folder):
    for name in ("vocab.txt", "tokenizer_config.json"):
        (folder / name).unlink()


def know_no_letters(folder):
    words = ["<cls>", "<pad>", "<eos>", "<unk>", "MKV", "<mask>"]
    (folder / "vocab.txt").write_text("\n".join(words))


def lack_a_weight(folder):
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if name.endswith("layer.0.attention.self.query.weight"))
    save_file({key: x for key, x in weights.items() if key != name}, folder / "model.safetensors", {"format": "pt"})


def change_config(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lack_a_tokenizer, "cannot read the tokenizer of the language model"),
        (know_no_letters, "must know each of the 20 amino acids as one token"),
        (lack_a_weight, "1 are absent or of another shape, such as encoder"),
        (lambda folder: change_config(folder, hidden_size=32), r"not those of its config\.json: \d\d are"),
        (lambda folder: change_config(folder, model_type="nobody-knows"), r"cannot read the config\.json"),
        (lambda folder: (folder / "config.json").write_text("{"), r"cannot read the config\.json"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"no"), "cannot read the weights"),
    ],
)
def test_a_folder_that_is_wrong_is_named(folder, spoil, message):
    spoil(folder)
    with pytest.raises(DataError, match=message) as raised:
        LanguageModel(folder)(["MKV"])
    assert "\n" not in str(raised.value)
    assert str(folder) in str(raised.value)


@pytest.mark.parametrize("layer", [3, -4])
def test_a_layer_that_is_not_there_is_named(folder, layer):
    with pytest.raises(DataError, match=f"layer must be -3 to 2 .* got {layer}"):
        LanguageModel(folder, layer=layer)(["MKV"])


def test_a_run_is_fitted_and_folds_with_it(folder, packed, monkeypatch, capsys):
    from conftest import SMALL_CHAINS

    monkeypatch.setenv("XDG_CACHE_HOME", str(packed / "cache"))
    run, small = packed / "run", [word for key, value in SMALL_CHAINS.items() for word in ("--set", f"{key}={value}")]
    words = ["fit", "protein", "--quiet", "--out", str(run), *small, "--set", f"features.folder={folder}"]
    assert main([*words, "--set", "features.layer=1"]) == 0
    fold = ["fold", "MKVLAAG", "--run", str(run), "-n", "1", "--steps", "2", "--quiet"]
    assert main(fold) == 0
    assert main(["measure", str(run), "--steps", "2", "--quiet"]) == 0
    moved = shutil.copytree(folder, packed / "moved")
    assert main([*fold, "--features", str(moved)]) == 0
    capsys.readouterr()
    lack_a_weight(moved)
    assert main([*fold, "--features", str(moved)]) == 2
    error = capsys.readouterr().err
    assert "holds another language model" in error
    assert error.count("\n") == 1
