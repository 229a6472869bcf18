"""The models that are known by name, and where each hub keeps them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Hub = Literal["modelscope", "huggingface"]

LITE = "lite"
AUTO = "auto"
MAIN = "emotion2vec_plus_large"


@dataclass(frozen=True)
class KnownModel:
    """A model with a short name.

    Attributes:
        name: what users type.
        family: ``emotion2vec`` or ``lite``.
        summary: one line in English.
        summary_zh: the same in Chinese.
        modelscope, huggingface: hub ids; empty where the hub has none or needs none.
        download_mb: rough size of the download; 0 when unknown or none.
    """

    name: str
    family: Literal["emotion2vec", "lite"]
    summary: str
    summary_zh: str
    modelscope: str = ""
    huggingface: str = ""
    download_mb: int = 0

    def repo(self, hub: Hub) -> str:
        """The id on ``hub``, or an empty string."""
        return self.modelscope if hub == "modelscope" else self.huggingface


def known_models() -> tuple[KnownModel, ...]:
    """Every model with a short name, best first."""
    return (
        KnownModel(
            MAIN,
            "emotion2vec",
            "Emotion2Vec+ Large, the main model",
            "Emotion2Vec+ Large，主模型",
            "iic/emotion2vec_plus_large",
            "emotion2vec/emotion2vec_plus_large",
            1900,
        ),
        KnownModel(
            "emotion2vec_plus_base",
            "emotion2vec",
            "Emotion2Vec+ Base, smaller",
            "Emotion2Vec+ Base，较小",
            "iic/emotion2vec_plus_base",
            "emotion2vec/emotion2vec_plus_base",
        ),
        KnownModel(
            "emotion2vec_plus_seed",
            "emotion2vec",
            "Emotion2Vec+ Seed, trained on academic data only",
            "Emotion2Vec+ Seed，仅用学术数据训练",
            "iic/emotion2vec_plus_seed",
            "emotion2vec/emotion2vec_plus_seed",
        ),
        KnownModel(
            "emotion2vec_base_finetuned",
            "emotion2vec",
            "the first fine-tuned emotion2vec",
            "首个微调的 emotion2vec",
            "iic/emotion2vec_base_finetuned",
        ),
        KnownModel(LITE, "lite", "the small embedded model, part of this package", "内置小模型，随软件包提供"),
    )


def find(name: str) -> KnownModel | None:
    """The known model of this short name or hub id, or None.

    >>> find("iic/emotion2vec_plus_large").name
    'emotion2vec_plus_large'
    """
    wanted = name.strip()
    return next((m for m in known_models() if wanted and wanted in (m.name, m.modelscope, m.huggingface)), None)


def is_hub_id(name: str) -> bool:
    """Whether ``name`` has the form ``owner/name`` of a hub id.

    >>> is_hub_id("iic/emotion2vec_plus_large"), is_hub_id("/tmp/model"), is_hub_id("../x")
    (True, False, False)
    """
    owner, slash, rest = name.partition("/")
    return bool(slash) and all(
        part and part.replace("-", "").replace("_", "").replace(".", "").isalnum() and not part.startswith(".")
        for part in (owner, rest)
    )
