"""Both languages have every text that the code asks for, and nothing else."""

import re
from pathlib import Path

import emotion_app.web as web
from emotion_app.web.i18n import load_words

CODE = "\n".join(p.read_text("utf-8") for p in Path(web.__file__).parent.rglob("*.py"))
WORDS = load_words()


def test_same_keys_and_same_facts() -> None:
    assert WORDS["zh"].table.keys() == WORDS["en"].table.keys()
    for key, text in WORDS["en"].table.items():
        assert set(re.findall(r"{(\w+)}", text)) == set(re.findall(r"{(\w+)}", WORDS["zh"].table[key])), key
        assert key.startswith("ser_"), "a bare key collides with Gradio's own namespaces and shows as [object Object]"


def test_every_key_is_used_and_every_use_has_a_key() -> None:
    used = set(re.findall(r"[\"'](ser_[a-z_]+)[\"']", CODE))
    built = set(re.findall(r"f[\"'](ser_[a-z_]+){", CODE))
    for key in WORDS["en"].table:
        assert key in used or any(key.startswith(prefix) for prefix in built), f"{key} is not used"
    for key in used:
        assert key in WORDS["en"].table, f"{key} has no text"


def test_chinese_is_chinese_and_english_is_not() -> None:
    names = {"ser_model_large", "ser_name_large"}  # proper names
    for key in WORDS["en"].table:
        assert not re.search(
            r"[一-鿿]", WORDS["en"](key) if "{" not in WORDS["en"].table[key] else WORDS["en"].table[key]
        ), key
        if key not in names and re.search(r"[A-Za-z]{4,}", re.sub(r"{\w+}", "", WORDS["en"].table[key])):
            text = re.sub(r"{\w+}", "", WORDS["zh"].table[key])
            assert re.search(r"[一-鿿]", text) or not re.search(r"[A-Za-z]{3,}", text), key
