"""The chat format: how a model is asked, where its answer begins and which token ends it, as token ids.

Prompts are rendered by the model's own chat template. Where the prompt ends, how an answer is tokenised and which token
ends the assistant's turn are read off a rendered turn, and the ids are checked at the boundary. What a template renders
depends on its input alone: thinking off, reasoning effort low, the date fixed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from calibnb.errors import UserError

# Templates for model types whose folders may lack one although the models were trained on it. That of gpt_oss is the
# harmony format as the `openai-harmony` package renders it, for a conversation without tools: the model's own preamble
# with the reasoning effort, instructions as the developer's turn, answers in the final channel.
TEMPLATES = {"gpt_oss": Path(__file__).with_name("gpt_oss.jinja")}

# Some templates print today's date. A macro of the same name, put before the template, hides the clock.
_FIXED_CLOCK = (
    "{%- macro strftime_now(format) -%}{{ '2024-07-26' if '-' in format else '26 Jul 2024' }}{%- endmacro -%}"
)


@dataclass(frozen=True)
class ChatFormat:
    """How one model is asked and how it answers, as token ids.

    Attributes
    ----------
    tokenizer, template : PreTrainedTokenizerBase, str
        The renderer.
    end_id : int
        The token that ends the assistant's turn.
    forced : str
        What stands between the generation prompt and an answer (a final channel); part of the prompt.
    anchor : str
        What every prompt ends in, the last special token after the question and all that follows, or all that follows
        the question where roles are plain text. Answers are tokenised after it, not the whole prompt.
    closing : str
        The text of the end token.
    in_parts : bool
        Whether the template reads contents as lists of parts.
    markers : tuple[str, ...]
        Texts of the special tokens. In a question or an answer they would be tokens, such as a turn's end.
    """

    tokenizer: PreTrainedTokenizerBase
    template: str
    end_id: int
    forced: str
    anchor: str
    closing: str
    in_parts: bool = False
    markers: tuple[str, ...] = ()

    def render(self, messages: list[dict[str, str]], add_generation_prompt: bool, **how: bool) -> str:
        """The text that the template makes of messages of `role` and `content`; UserError where it fails."""
        return _render(self.tokenizer, self.template, messages, add_generation_prompt, self.in_parts, **how)

    def prompt_text(self, text: str, *, system: str | None = None) -> str:
        """The rendered prompt: everything before the first character of the answer.

        Raises
        ------
        UserError
            Where a text holds a special token, and where the template refuses the system text or leaves it out.
        """
        self._refuse_markers("question", text)
        self._refuse_markers("system text", system or "")
        rendered = self.render(_messages(text, system), True) + self.forced
        if system is not None and system.strip() not in rendered:
            raise UserError(
                f"{_name(self.tokenizer)}: leaves a system text out; give none, or put a chat_template.jinja "
                "that renders it into the model's folder"
            )
        if not rendered.endswith(self.anchor):
            raise UserError(
                f"{_name(self.tokenizer)}: the prompt does not end in {self.anchor!r} but in {rendered[-40:]!r}"
            )
        return rendered

    def prompt_ids(self, text: str, *, system: str | None = None) -> list[int]:
        """Ids of the whole prompt, with the one BOS that the template writes; the tokenizer adds none.

        Raises
        ------
        UserError
            Where no answer begins after them, for the tokenizer merges over the boundary.
        """
        rendered, closed = self.prompt_text(text, system=system), PROBE + self.closing
        ids, turn, alone = _ids(self.tokenizer, [rendered, rendered + closed, self.anchor + closed])
        bos = self.tokenizer.bos_token_id
        if bos is not None and ids[:2] == [bos, bos]:
            raise UserError(
                f"{_name(self.tokenizer)}: the prompt starts with two BOS tokens ({self.tokenizer.bos_token})"
            )
        # Whether two tokens may be neighbours depends on the two alone (Berglund and van der Merwe, 2023,
        # for byte-pair encoding). So any answer follows this prompt as it follows the anchor if both end in
        # one token.
        last = turn[len(ids) - 1 :]
        if turn[: len(ids)] != ids or alone[-len(last) :] != last:
            raise UserError(
                f"{_name(self.tokenizer)}: no ids show where an answer begins, for what the prompt ends in, "
                f"{rendered[-20:]!r}, merges with the answer or with the question; put a chat_template.jinja "
                "into the model's folder that keeps them apart, say by a line break"
            )
        return ids

    def exchange_ids(self, question: str, answer: str, *, system: str | None = None) -> tuple[list[int], list[int]]:
        """Ids of a prompt and of its answer, both read off the rendered turn.

        A template may strip blanks off the answer's ends: its ids are those of what is rendered.

        Raises
        ------
        UserError
            Where the answer holds a special token, is rendered as something else, is empty or merges with the prompt,
            and as `prompt_text` does.
        """
        self._refuse_markers("answer", answer)
        prompt = self.prompt_text(question, system=system)
        turn = self.render([*_messages(question, system), {"role": "assistant", "content": answer}], False)
        said = turn.removeprefix(prompt).partition(self.closing)[0]
        if not turn.startswith(prompt) or said.strip() != answer.strip():
            raise UserError(f"{_name(self.tokenizer)}: renders the answer {_short(answer)} as {_short(said)}")
        ids, whole = _ids(self.tokenizer, [prompt, prompt + said + self.closing])
        if whole[: len(ids)] != ids or whole[-1] != self.end_id or len(whole) < len(ids) + 2:
            raise UserError(
                f"{_name(self.tokenizer)}: the answer {_short(answer)} is empty or begins with what the "
                f"tokenizer merges with the prompt's end, {self.anchor[-20:]!r}"
            )
        return ids, whole[len(ids) : -1]

    def _refuse_markers(self, what: str, text: str) -> None:
        for marker in self.markers:
            if marker in text:
                raise UserError(f"{_name(self.tokenizer)}: the {what} {_short(text)} holds {marker!r}, a special token")

    def answer_ids(self, strings: Sequence[str]) -> list[list[int]]:
        """Ids of each answer as they stand in the rendered turn, without the token that ends it.

        One call of the tokenizer for all strings, each between the anchor and the closing.

        Raises
        ------
        UserError
            Where a string merges with what is around it, for its ids would then not follow the prompt's.
        """
        texts = [self.anchor, self.closing, *(self.anchor + string + self.closing for string in strings)]
        before, after, *rows = _ids(self.tokenizer, texts)
        head, tail = len(before), len(after)
        answers = []
        for string, row in zip(strings, rows, strict=True):
            if row[:head] != before or row[-tail:] != after or len(row) <= head + tail:
                raise UserError(
                    f"{_name(self.tokenizer)}: the answer {string!r} is empty or merges with what stands around "
                    f"it, {self.anchor!r} and {self.closing!r}; change the answer, or put a chat_template.jinja "
                    "into the model's folder that keeps them apart"
                )
            if self.end_id in row[head:-tail]:
                raise UserError(
                    f"{_name(self.tokenizer)}: the answer {string!r} holds {self.closing!r}, the end of a turn"
                )
            answers.append(row[head:-tail])
        return answers

    def decode(self, ids: Sequence[int]) -> str:
        """Text of answer ids. Special tokens are kept: an answer that holds one is not a number."""
        return self.decode_many([ids])[0]

    def decode_many(self, rows: Sequence[Sequence[int]]) -> list[str]:
        """Text of many answers; see `decode`."""
        return decode(self.tokenizer, rows)


def decode(tokenizer: PreTrainedTokenizerBase, rows: Sequence[Sequence[int]]) -> list[str]:
    """Text of rows of ids as they are: special tokens kept, no spaces tidied."""
    texts = []
    for row in rows:
        text = tokenizer.decode(list(row), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        assert isinstance(text, str)
        texts.append(text)
    return texts


def _messages(text: str, system: str | None = None) -> list[dict[str, str]]:
    lead = [] if system is None else [{"role": "system", "content": system}]
    return [*lead, {"role": "user", "content": text}]


# Switches of chat templates, which ignore those that they do not know.
SWITCHES = {"enable_thinking": False, "reasoning_effort": "low"}

# What a template raises by itself, and what its expressions raise, which are Python's.
_TEMPLATE_ERRORS = (
    TemplateError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
)


def _render(
    tokenizer: PreTrainedTokenizerBase,
    template: str,
    messages: list[dict[str, str]],
    add_generation_prompt: bool,
    in_parts: bool = False,
    **how: bool,
) -> str:
    """Rendered text. Raises UserError, with the template's own words, where the template fails."""
    given: list[dict[str, Any]] = list(messages)
    if in_parts:
        given = [m | {"content": [{"type": "text", "text": m["content"]}]} for m in messages]
    try:
        rendered = tokenizer.apply_chat_template(
            given,
            chat_template=template,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            **SWITCHES,  # type: ignore[arg-type]
            **how,  # type: ignore[arg-type]
        )
    except _TEMPLATE_ERRORS as error:
        roles = ", ".join(message["role"] for message in messages)
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        without = "give no system text, or " if messages[0]["role"] == "system" else ""
        raise UserError(
            f"{_name(tokenizer)}: fails on a conversation of {roles} ({reason}); {without}put a "
            "chat_template.jinja that renders it into the model's folder"
        ) from error
    assert isinstance(rendered, str)
    return rendered


def _ids(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[list[int]]:
    """Ids of texts that hold their special tokens already."""
    rows: list[list[int]] = tokenizer(texts, add_special_tokens=False, return_attention_mask=False)["input_ids"]
    return rows


# A question and an answer that no template writes by itself.
QUESTION, PROBE = "Say 8642.", "7531.25"


def _short(text: str) -> str:
    """A text as errors show it: quoted, and its beginning only."""
    return repr(text if len(text) <= 40 else f"{text[:40]}...")


def _name(tokenizer: PreTrainedTokenizerBase) -> str:
    """The tokenizer, for errors."""
    return f"chat template of {tokenizer.name_or_path or 'a tokenizer without a name'}"


def chat_template(tokenizer: PreTrainedTokenizerBase) -> str:
    """The template of a tokenizer, its clock stopped; of several the default. UserError without one."""
    kept = tokenizer.chat_template
    remedy = "put the one to use as chat_template.jinja into the model's folder"
    if kept is None:
        raise UserError(f"{_name(tokenizer)}: there is no chat template; use an instruction-tuned model, or {remedy}")
    if isinstance(kept, dict) and "default" not in kept:
        raise UserError(f"{_name(tokenizer)}: none of {', '.join(sorted(kept))} is named default; {remedy}")
    template = kept["default"] if isinstance(kept, dict) else kept
    if not isinstance(template, str):
        raise UserError(f"{_name(tokenizer)}: must be a text, got {template!r}; {remedy}")
    return _FIXED_CLOCK + template if "strftime_now" in template else template


def _probe(tokenizer: PreTrainedTokenizerBase, template: str) -> tuple[bool, str, str]:
    """Whether contents must be lists of parts, a rendered prompt, and the whole turn.

    Given the form that it does not read, a template fails, or it leaves out what was said.
    """
    answered = [*_messages(QUESTION), {"role": "assistant", "content": PROBE}]
    failed = None
    for in_parts in (False, True):
        try:
            prompt = _render(tokenizer, template, _messages(QUESTION), True, in_parts)
            turn = _render(tokenizer, template, answered, False, in_parts)
        except UserError as error:
            failed = failed or error
            continue
        if QUESTION in prompt and PROBE in turn:
            return in_parts, prompt, turn
    raise failed or UserError(
        f"{_name(tokenizer)}: leaves out the question or the answer; put a chat_template.jinja that renders "
        "both into the model's folder"
    )


def chat_format(tokenizer: PreTrainedTokenizerBase) -> ChatFormat:
    """The chat format of a tokenizer with a template, read off a rendered conversation.

    A question and an answer are rendered as a whole turn, the question also as a prompt. The prompt must be the start
    of the turn; what the turn has between prompt and answer (thinking switched off, a final channel) becomes part of
    the prompt, and the special token right after the answer ends the turn: `eos_token` is often another one. A template
    may refuse system texts: where one is asked for, the prompt raises.

    Raises
    ------
    UserError
        For a template that is missing or fails, a turn without end, and ids that do not show where an answer begins.
    """
    template = chat_template(tokenizer)
    in_parts, prompt, turn = _probe(tokenizer, template)
    if not turn.startswith(prompt) or PROBE not in turn[len(prompt) :]:
        raise UserError(f"{_name(tokenizer)}: the prompt is not the start of the rendered assistant turn")
    start = turn.index(PROBE, len(prompt))
    forced, closing = turn[len(prompt) : start], turn[start + len(PROBE) :]

    special = {token.content: id for id, token in tokenizer.added_tokens_decoder.items()}
    end = max((token for token in special if closing.startswith(token)), key=len, default=None)
    if end is None:
        raise UserError(
            f"{_name(tokenizer)}: no end of turn found; {closing[:20]!r} follows the answer, no special token"
        )
    lead = prompt + forced
    asked = lead.rindex(QUESTION) + len(QUESTION)
    marked = max((lead.rfind(token) for token in special), default=-1)
    anchor = lead[marked if marked >= asked else asked :]
    if not anchor:
        raise UserError(f"{_name(tokenizer)}: nothing stands between a question and its answer")
    added = tokenizer.added_tokens_decoder.values()
    markers = tuple(token.content for token in added if token.special or token.content == end)
    chat = ChatFormat(tokenizer, template, special[end], forced, anchor, end, in_parts, markers)
    whole = _ids(tokenizer, [turn])[0]
    # A blank before the answer may merge with some numbers and not with others.
    probe, *_ = chat.answer_ids([PROBE, *map(str, range(-9, 1000))])
    parts = [*chat.prompt_ids(QUESTION), *probe, chat.end_id]
    if whole[: len(parts)] != parts:
        raise UserError(f"{_name(tokenizer)}: the ids of prompt, answer and end of turn are not those of the turn")
    return chat
