"""Words of the page in Chinese and English, from ``locales/*.json``.

Gradio's own ``I18n`` follows the browser only, leaves what Python returns untranslated and cannot be switched while the
page is open; here every text goes through ``Words`` and is sent again when the language changes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from emotion_app.labels import Lang

LANGS: tuple[Lang, ...] = get_args(Lang)
DEFAULT_LANG: Lang = "zh"  # what the page is built in before the browser has said its language
_LOCALES = Path(__file__).parent / "locales"


@dataclass(frozen=True)
class Words:
    """All texts of one language.

    >>> load_words()["en"]("ser_stop")
    'Stop'
    """

    lang: Lang
    table: dict[str, str]

    def __call__(self, key: str, **facts: object) -> str:
        """The text for ``key`` with its facts filled in.

        Raises:
            KeyError: a key that the locale file does not have (a test compares both files with the code).
        """
        text = self.table[key]
        return text.format(**facts) if facts else text


def load_words() -> dict[Lang, Words]:
    """Words of every language, read from the locale files."""
    return {lang: Words(lang, json.loads((_LOCALES / f"{lang}.json").read_text("utf-8"))) for lang in LANGS}


def lang_of(value: object) -> Lang:
    """A language from something a client sent; unknown values give the default.

    >>> lang_of("en"), lang_of("fr"), lang_of(None)
    ('en', 'zh', 'zh')
    """
    return "en" if value == "en" else DEFAULT_LANG


def lang_of_header(accept_language: str) -> Lang:
    """Language for a request by its ``Accept-Language`` header: Chinese when it is asked for before English.

    >>> lang_of_header("zh-CN,zh;q=0.9,en;q=0.8"), lang_of_header("en-GB,en;q=0.9,zh;q=0.8"), lang_of_header("de")
    ('zh', 'en', 'en')
    """
    for part in accept_language.lower().split(","):
        tag = part.split(";")[0].strip()
        if tag.startswith("zh"):
            return "zh"
        if tag.startswith("en"):
            return "en"
    return "en"
