"""A protein language model of a folder on disk, read through transformers: one vector a residue.

Nothing is fetched, and no code of the folder is run: its weights must be safetensors and its kind one that transformers
knows by itself, such as ESM-2, ESM-1b, ProtBert or ProtT5.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from renorm.data.proteins.sequence import AMINO_ACIDS
from renorm.errors import DataError
from renorm.nn.weights import sha256_of

__all__ = ["LanguageModel", "is_language_model"]

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
VOCABULARIES = ("merges.txt", "spiece.model", "tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")
UNUSED = ("pooler", "contact_head")  # parts that no hidden state passes through, which files may lack
OFFSET = ("esm", "roberta", "xlm-roberta", "camembert")  # kinds whose positions are counted from behind the padding


def is_language_model(folder: Path) -> bool:
    """Whether a folder looks like a model in the layout of Hugging Face."""
    return (folder / "config.json").is_file()


class LanguageModel:
    """Hidden states of a language model as features of residues.

    A sequence is told letter by letter, with the marks of begin and end that the model was trained with; what stands
    at these marks is dropped. It is read in float32, whatever the weights are kept in.

    Args:
        folder: ``config.json``, ``model.safetensors`` (or shards with their index) and the files of the tokenizer.
        layer: 0 is the embedding, -1 the last hidden state.
        device: Where it is reckoned.

    Raises:
        DataError: If the folder is absent or lacks a file. When first called: if transformers is not installed, cannot
            read it, weights are missing in it, the layer is out of range, or a token is not a residue.

    Invariant: A sequence has the same features alone and in a batch, to the digits of float32.
    """

    def __init__(self, folder: Path, *, layer: int = -1, device: torch.device | str = "cpu") -> None:
        self.folder, self.layer, self.device = folder, layer, torch.device(device)
        self.weights = _weights(folder)

    @cached_property
    def sha256(self) -> str:
        """Of weights, config and vocabulary: what the values depend on. Names of folders do not count."""
        digest = hashlib.sha256()
        others = [self.folder / name for name in ("config.json", *VOCABULARIES)]
        for path in [*self.weights, *(path for path in others if path.is_file())]:
            digest.update(f"{path.name} {sha256_of(path)}\n".encode())
        return digest.hexdigest()

    @property
    def key(self) -> str:
        """Weights and layer, see `renorm.data.proteins.features.kept.ResidueModel`."""
        return f"{self.sha256} {self.layer}"

    @torch.no_grad()
    def __call__(self, sequences: Sequence[str]) -> list[Float[Tensor, "_ feature"]]:
        """Features of a batch, on the CPU, in float32.

        Raises:
            DataError: If a sequence is longer than the model can read, or is not one token a residue.
        """
        loaded = self._loaded
        told = [loaded.tokens(text) for text in sequences]
        longest = max((len(ids) for ids, _ in told), default=0)
        if loaded.longest is not None and longest > loaded.longest:
            raise DataError(
                f"the language model in {self.folder} reads {loaded.longest} tokens at most, got {longest}; "
                "set data.longest lower, or take a model of relative positions"
            )
        ids = torch.full((len(told), longest), loaded.padding)
        there = torch.zeros(len(told), longest, dtype=torch.int64)
        for row, (tokens, _) in enumerate(told):
            ids[row, : len(tokens)], there[row, : len(tokens)] = torch.tensor(tokens), 1
        last = self.layer in (-1, loaded.layers)  # behind the last norm, in which models differ
        out = loaded.network(
            input_ids=ids.to(self.device),
            attention_mask=there.to(self.device),
            output_hidden_states=not last,
            return_dict=True,
        )
        hidden = (out.last_hidden_state if last else out.hidden_states[self.layer]).cpu()
        return [x[: len(kept)][torch.tensor(kept)] for x, (_, kept) in zip(hidden, told, strict=True)]

    def close(self) -> None:
        """Give its memory back; the next call reads it again."""
        self.__dict__.pop("_loaded", None)

    @cached_property
    def _loaded(self) -> "_Loaded":
        loaded = _load(self.folder, self.device)
        if not -loaded.layers - 1 <= self.layer <= loaded.layers:
            raise DataError(
                f"layer must be {-loaded.layers - 1} to {loaded.layers} (0 is the embedding) of the language model in "
                f"{self.folder}, got {self.layer}"
            )
        return loaded


class _Loaded(NamedTuple):
    folder: Path
    network: Any
    tokenizer: Any
    layers: int
    longest: int | None  # tokens
    padding: int
    spaced: bool  # whether letters are told with blanks between them

    def tokens(self, sequence: str) -> tuple[list[int], list[bool]]:
        """Numbers of the tokens, and which of them are residues."""
        ids, kept = _tokens(self.tokenizer, sequence, self.spaced)
        if sum(kept) != len(sequence):
            raise DataError(
                f"the tokenizer in {self.folder} must give one token for each of {len(sequence)} residues, got "
                f"{sum(kept)} for {sequence[:20]}"
            )
        return ids, kept


def _weights(folder: Path) -> list[Path]:
    """Files of the weights, all there."""
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder} of a language model")
    if not is_language_model(folder):
        raise DataError(f"{folder} is no language model (there is no config.json)")
    names = {WEIGHTS}
    if not (folder / WEIGHTS).is_file() and (folder / INDEX).is_file():
        try:
            names = set(json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].values())
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            raise DataError(f"{folder / INDEX} is damaged: it names no weights") from None
    absent = sorted(name for name in names if not (folder / name).is_file())
    if absent:
        pickled = ", and pickled ones are not read; save_pretrained writes safetensors" if _pickled(folder) else ""
        raise DataError(f"{folder} lacks the weights {absent[0]} of its language model{pickled}")
    return [folder / name for name in sorted(names)]


def _pickled(folder: Path) -> bool:
    return any(folder.glob("*.bin")) or any(folder.glob("*.pt"))


def _load(folder: Path, device: torch.device) -> _Loaded:
    transformers = _library(folder)
    local = {"local_files_only": True, "trust_remote_code": False}
    what = "config.json"
    try:
        with _quiet(transformers), torch.random.fork_rng(devices=[]):  # it draws what the file lacks
            config = transformers.AutoConfig.from_pretrained(folder, **local)
            layers = int(config.num_hidden_layers)
            what = "tokenizer"
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **local)
            what = "weights"
            kind = transformers.AutoModelForTextEncoding if config.is_encoder_decoder else transformers.AutoModel
            local |= {"use_safetensors": True, "ignore_mismatched_sizes": True, "output_loading_info": True}
            network, found = kind.from_pretrained(folder, config=config, **local)
    except Exception as error:  # of any kind: a library of hundreds of models reads the user's files
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataError(f"transformers cannot read the {what} of the language model in {folder}: {reason}") from None
    learned = {name for name, _ in network.named_parameters()}
    unlike = {each if isinstance(each, str) else each[0] for each in found["mismatched_keys"]}
    wrong = sorted(n for n in learned & (unlike | set(found["missing_keys"])) if not n.startswith(UNUSED))
    if wrong:
        raise DataError(
            f"the weights in {folder} are not those of its config.json: {len(wrong)} are absent or of another shape, "
            f"such as {wrong[0]}"
        )
    network = network.float().eval().requires_grad_(False).to(device)
    spaced = _spaced(folder, tokenizer)
    padding = tokenizer.pad_token_id or 0
    return _Loaded(folder, network, tokenizer, layers, _longest(config), padding, spaced)


def _spaced(folder: Path, tokenizer: Any) -> bool:
    """Whether the tokenizer wants blanks between the letters, as that of ProtBert does."""
    for spaced in (False, True):
        ids, kept = _tokens(tokenizer, AMINO_ACIDS, spaced)
        known = {number for number, is_kept in zip(ids, kept, strict=True) if is_kept} - {tokenizer.unk_token_id}
        if sum(kept) == len(known) == len(AMINO_ACIDS):
            return spaced
    raise DataError(
        f"the tokenizer in {folder} must know each of the 20 amino acids as one token; it is absent, or of "
        "a model that reads words"
    )


def _tokens(tokenizer: Any, sequence: str, spaced: bool) -> tuple[list[int], list[bool]]:
    told = tokenizer(" ".join(sequence) if spaced else sequence, return_special_tokens_mask=True, verbose=False)
    return told["input_ids"], [not special for special in told["special_tokens_mask"]]


def _longest(config: Any) -> int | None:
    """Most tokens, where the positions that a model knows are a table."""
    most: int | None = getattr(config, "max_position_embeddings", None)
    if most is None or getattr(config, "position_embedding_type", "absolute") != "absolute":
        return None
    return most - (config.pad_token_id or 0) - 1 if config.model_type in OFFSET else most


def _library(folder: Path) -> Any:
    """transformers, or ``DataError`` with the way to install it."""
    try:
        return import_module("transformers")
    except ImportError:
        raise DataError(
            f"the language model in {folder} needs transformers: pip install 'renorm[lm]' (features of files do not)"
        ) from None


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """Without the bars and warnings of transformers: what matters of them is checked here."""
    logging = transformers.utils.logging
    before, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()
