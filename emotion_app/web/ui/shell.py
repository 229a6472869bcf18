"""What all pages share: their services, and the live switch of the language.

A page is a module with ``build(shell) -> None`` that is called inside its tab. Each component with text is bound to a
function that makes its update in a language; the switch sends all of them again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gradio as gr

from emotion_app.labels import Lang
from emotion_app.settings import Settings
from emotion_app.web.i18n import DEFAULT_LANG, Words, lang_of
from emotion_app.web.ui.jobs import Jobs
from emotion_app.web.ui.sounds import Example

MODEL_SLOT = "model"  # concurrency id of every handler that runs the model

MakeUpdate = Callable[..., Any]  # (words, *values of inputs) -> update


@dataclass(frozen=True)
class _Binding:
    component: gr.blocks.Block
    make: MakeUpdate
    inputs: tuple[gr.components.Component, ...]


@dataclass
class Shell:
    """Services and shared parts for the pages.

    Attributes:
        settings: of the process.
        jobs: runs analyses.
        words: texts by language.
        examples: clips that can be loaded.
        upload_dir: the only folder that uploads are in.
        lang: the language switch; its value is an input of every handler that answers in words.
    """

    settings: Settings
    jobs: Jobs
    words: dict[Lang, Words]
    examples: tuple[Example, ...]
    upload_dir: Path
    lang: gr.Radio = field(init=False)
    _bindings: list[_Binding] = field(default_factory=list)
    _spoken: dict[str, Lang] = field(default_factory=dict)  # of open pages; forgotten when they close

    @property
    def first(self) -> Words:
        """The language in which the page is built before the browser says its own."""
        return self.words[DEFAULT_LANG]

    def said(self, lang: object) -> Words:
        """Words for the value of the switch, which comes from the client."""
        return self.words[lang_of(lang)]

    def spoken(self, session: str, lang: object) -> Words:
        """Words for what a long handler shows: the page may have switched since it was called with ``lang``."""
        return self.words[self._spoken.get(session, lang_of(lang))]

    def forget(self, session: str) -> None:
        """A page was closed."""
        self._spoken.pop(session, None)
        self.jobs.cancel(session)

    def bind(
        self, component: gr.blocks.Block, make: MakeUpdate, inputs: Sequence[gr.components.Component] = ()
    ) -> None:
        """Have ``component`` updated by ``make(words, *inputs)`` when the page opens and when the language changes."""
        self._bindings.append(_Binding(component, make, tuple(inputs)))

    def bind_switch(self, demo: gr.Blocks) -> None:
        """Connect page load and switch; to be called when all pages are built."""
        inputs = [item for binding in self._bindings for item in binding.inputs]
        outputs = [binding.component for binding in self._bindings]
        titles = {lang: words("ser_title") for lang, words in self.words.items()}
        shown = f"(lang) => window.serLang.set(lang, ({titles!r})[lang])"

        def relabel(request: gr.Request, lang: object, *values: Any) -> list[Any]:
            self._spoken[request.session_hash or ""] = lang_of(lang)
            words, rest, updates = self.said(lang), list(values), []
            for binding in self._bindings:
                own, rest = rest[: len(binding.inputs)], rest[len(binding.inputs) :]
                updates.append(binding.make(words, *own))
            return updates

        def opened(request: gr.Request, lang: object, *values: Any) -> list[Any]:
            return [gr.update(value=lang_of(lang)), *relabel(request, lang, *values)]

        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private", "queue": False}
        demo.load(
            opened,
            [self.lang, *inputs],
            [self.lang, *outputs],
            js="(lang, ...rest) => [window.serLang.first || lang, ...rest]",
            **quiet,
        ).then(None, self.lang, None, js=shown, api_visibility="private")
        self.lang.input(None, self.lang, None, js="(lang) => window.serLang.keep(lang)", api_visibility="private")
        self.lang.input(relabel, [self.lang, *inputs], outputs, **quiet).then(
            None, self.lang, None, js=shown, api_visibility="private"
        )
