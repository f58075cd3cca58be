"""Answer positions: what models really write, measures against closed forms, probabilities against a full pass."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import PRINTABLE, chat_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from calibnb.benchmarks.positions import measures, reading
from calibnb.benchmarks.positions.measures import AnswerPoint
from calibnb.benchmarks.positions.reading import LETTERS, Parsed, Reason, Rejected, parse, parse_strict
from calibnb.errors import UserError
from calibnb.evidence.intervals import wilson
from calibnb.models import chatformat
from calibnb.trees import sampling
from calibnb.trees.attention import Body

STEM = "Question: Which drug inhibits platelets?\n"
FOUR = "A. Aspirin\nB. Ibuprofen\nC. Heparin\nD. Warfarin\n"
PLAIN = STEM + FOUR + "Answer: C\nExplanation: It does."
SECOND = "\n\nQuestion 2: Which organ?\nA. Liver\nB. Lung\nC. Skin\nD. Bone\n"

# ------------------------------------------------------------------------------------------------------- parser

LENIENT = {
    "plain": (PLAIN, "C"),
    "no explanation": (STEM + FOUR + "Answer: D", "D"),
    "bold": (
        "**Question:** Which drug?\n\n**A.** Aspirin\n**B.** Ibuprofen\n**C.** Heparin\n**D.** Warfarin\n\n"
        "**Answer:** B\n\n**Explanation:** Because.",
        "B",
    ),
    "bold letter and colon": (STEM + "**A)** x\n**B)** y\n**C)** z\n**D)** w\n\n**Correct answer: C**", "C"),
    "italics": (STEM + "_A)_ x\n_B)_ y\n_C)_ z\n_D)_ w\n*Answer*: _A_", "A"),
    "headings": (
        "### Question 1\nWhich drug?\n\n#### Options\n" + FOUR + "\n### Answer\nB\n\n### Explanation\nYes.",
        "B",
    ),
    "heading and text": ("## Question\nWhich?\n" + FOUR + "\n## Correct Answer\n\n**D. Warfarin**\n", "D"),
    "brackets": (STEM + "(A) x\n(B) y\n(C) z\n(D) w\nAnswer: (C)", "C"),
    "letter and text": (STEM + FOUR + "Correct answer: A. Aspirin\n", "A"),
    "sentence": (STEM + FOUR + "\nThe correct answer is **C**", "C"),
    "sentence with article": (STEM + FOUR + "The correct answer is A because it works.", "A"),
    "sentence and option": (STEM + FOUR + "The correct option is (b) Ibuprofen.", "B"),
    "lower case": ("question: which?\na) x\nb) y\nc) z\nd) w\nanswer: d\nexplanation: so", "D"),
    "bullets": (STEM + "- A. x\n- B. y\n- C. z\n- D. w\n- Answer: B", "B"),
    "star bullets": (STEM + "* A) x\n* B) y\n* C) z\n* D) w\n\nAnswer - B", "B"),
    "colons": (STEM + "A: x\nB: y\nC: z\nD: w\nAnswer: A: x", "A"),
    "dashes": (STEM + "A - x\nB - y\nC - z\nD - w\nAnswer - D - w", "D"),
    "option words": (STEM + "Option A: x\nOption B: y\nOption C: z\nOption D: w\nAnswer: Option C", "C"),
    "numbered": (STEM + "1. A) x\n2. B) y\n3. C) z\n4. D) w\nAnswer: D)", "D"),
    "one line": ("Which drug? A) Aspirin B) Ibuprofen C) Heparin D) Warfarin\nAnswer: B) Ibuprofen", "B"),
    "all on one line": ("Q: Which? A. x, B. y, C. z, D. w. Answer: C. Explanation: z is right.", "C"),
    "two columns": (STEM + "(a) x    (b) y\n(c) z    (d) w\nAns: c", "C"),
    "vitamins on one line": ("Which? A. Vitamin A. B. Vitamin B. C. Vitamin C. D. Vitamin D. Answer: B", "B"),
    "wrapped": (STEM + "A. a long\n   option\nB. y\nC. z\nD. another\nlong one\nAnswer: C\n", "C"),
    "options below letters": (STEM + "A.\nx\nB.\ny\nC.\nz\nD.\nw\nAnswer:\nB\n", "B"),
    "chatter": ("Sure! Here is a question for you.\n\n" + PLAIN + "\n\nLet me know if you want another one.", "C"),
    "two questions": (PLAIN + SECOND + "Answer: A\nExplanation: Yes.", "C"),
    "second cut short": (PLAIN + "\n\nQuestion: Which organ?\nA. Liver\nB. Lu", "C"),
    "first without answer": (STEM + FOUR + SECOND + "Answer: D\n", "D"),
    "first without all options": (STEM + "A. x\nB. y\n\n" + PLAIN, "C"),
    "prompt repeated": (reading.prompt("medicine") + "\n\n" + PLAIN, "C"),
    "by text": (STEM + FOUR + "Answer: heparin.\nExplanation: It is.", "C"),
    "by text that starts with a letter": (
        "Which?\nA. S. aureus\nB. E. coli\nC. B. cereus\nD. C. difficile\nAnswer: B. cereus",
        "C",
    ),
    "by text that is an article": ("Which?\nA. x\nB. A beta blocker\nC. z\nD. w\nAnswer: A beta blocker", "B"),
    "blood groups": ("Which?\nA. A\nB. B\nC. AB\nD. O\nAnswer: B\n", "B"),
    "blood group by text": ("Which?\nA. A\nB. B\nC. AB\nD. O\nThe correct answer is O.", "D"),
    "options explained": (
        STEM + FOUR + "\nAnswer: B\n\nExplanation:\nA. Aspirin is wrong.\nB. It is right.\nC. No.\nD. Option D is not.",
        "B",
    ),
    "options explained first": (STEM + FOUR + "\nA. is wrong.\nB. is right.\nC. is not.\nD. is not.\nAnswer: B", "B"),
    "letter first": (STEM + FOUR + "\nB is the correct answer.", "B"),
    "option is correct": (STEM + FOUR + "\nExplanation: Option D (Warfarin) is correct.", "D"),
    "tick": (STEM + "A. x\nB. y ✅\nC. z\nD. w\n", "B"),
    "marked": (STEM + "A. x\nB. y\nC. z\nD. w (correct answer)\n", "D"),
    "boxed": (STEM + FOUR + "Answer: $\\boxed{C}$", "C"),
    "brackets of the prompt": (STEM + FOUR + "Answer: <C>", "C"),
    "brackets of the prompt around both": (STEM + FOUR + "Answer: <C. Heparin>", "C"),
    "letter behind its text": (STEM + FOUR + "Answer: Heparin (C)", "C"),
    "quoted": (STEM + FOUR + "The answer is 'C'.", "C"),
    "emphasised text": (STEM + FOUR + "The right answer to this question is therefore **C) Heparin**, a drug.", "C"),
    "said twice": (STEM + FOUR + "Answer: A\nExplanation: The correct answer is Aspirin. So A is correct.", "A"),
    "wrong ones named": (STEM + FOUR + "Answer: A\nWrong answer: B\nThe answer B is incorrect.", "A"),
    "full-width colon and windows lines": ((STEM + FOUR + "Answer：D").replace("\n", "\r\n"), "D"),
    "genus at a line's start": ("A. baumannii\nC. difficile\nWhich?\n" + FOUR + "Answer: B", "B"),
}  # fmt: skip

REJECTED = {
    "nothing": ("", Reason.EMPTY),
    "white space": (" \n\t", Reason.EMPTY),
    "refusal": ("I'm sorry, but I can't help with that.", Reason.NO_OPTIONS),
    "prose with a letter": ("Vitamin B. is good. The answer is B.", Reason.NO_OPTIONS),
    "numbers for letters": (STEM + "1. x\n2. y\n3. z\n4. w\nAnswer: 3", Reason.NO_OPTIONS),
    "three options": (STEM + "A. x\nB. y\nC. z\nAnswer: A", Reason.FEW_OPTIONS),
    "cut short": (STEM + "A. x\nB. y\nC. z", Reason.FEW_OPTIONS),
    "two on a line": ("Which? A) x B) y Answer: A", Reason.FEW_OPTIONS),
    "an empty option": (STEM + "A. x\nB.\nC. z\nD. w\nAnswer: A", Reason.FEW_OPTIONS),
    "five options": (STEM + FOUR + "E. Insulin\nAnswer: B", Reason.MANY_OPTIONS),
    "five on a line": ("Which? A) v B) w C) x D) y E) z Answer: B", Reason.MANY_OPTIONS),
    "no question": (FOUR + "Answer: B", Reason.NO_QUESTION),
    "label alone": ("Question:\nOptions:\n" + FOUR + "Answer: B", Reason.NO_QUESTION),
    "no answer": (STEM + FOUR, Reason.NO_ANSWER),
    "answer cut short": (STEM + FOUR + "Answer:", Reason.NO_ANSWER),
    "answer left out": (STEM + FOUR + "Answer:\n\nExplanation: C is a drug.", Reason.NO_ANSWER),
    "placeholder": (STEM + FOUR + "Answer: <the letter of the right option>", Reason.NO_ANSWER),
    "prompt alone": (reading.prompt("medicine"), Reason.NO_ANSWER),
    "article": (STEM + FOUR + "Answer: A patient with a stroke.", Reason.NOT_AN_OPTION),
    "vitamin": (STEM + FOUR + "\nHepatitis B is the correct answer.", Reason.NO_ANSWER),
    "protein": (STEM + FOUR + "Answer: C-reactive protein", Reason.NOT_AN_OPTION),
    "letter beyond": (STEM + FOUR + "Answer: E", Reason.NOT_AN_OPTION),
    "other text": (STEM + FOUR + "Answer: Insulin", Reason.NOT_AN_OPTION),
    "text of two": (STEM + "A. x\nB. y\nC. x\nD. w\nAnswer: x", Reason.NOT_AN_OPTION),
    "two labels": (STEM + FOUR + "Answer: B\nExplanation: The correct answer is C.", Reason.CONTRADICTORY),
    "both": (STEM + FOUR + "Answer: A and C", Reason.CONTRADICTORY),
    "list": (STEM + FOUR + "Correct answer: (A), (D)", Reason.CONTRADICTORY),
    "letter against text": (STEM + FOUR + "Answer: C. Aspirin", Reason.CONTRADICTORY),
    "letter behind another text": (STEM + FOUR + "Answer: Aspirin (C)", Reason.CONTRADICTORY),
    "letter behind what is no option": (STEM + FOUR + "Answer: Insulin (C)", Reason.NOT_AN_OPTION),
    "letter against tick": (STEM + "A. x ✓\nB. y\nC. z\nD. w\nAnswer: C", Reason.CONTRADICTORY),
    "taken back": (STEM + FOUR + "Answer: B\n\nB is wrong. D is the correct answer.", Reason.CONTRADICTORY),
}  # fmt: skip


@pytest.mark.parametrize("name", LENIENT)
def test_reads_what_models_write(name: str) -> None:
    text, letter = LENIENT[name]
    found = parse(text)
    assert isinstance(found, Parsed), found
    assert found.letter == letter
    assert found.at is None or text[found.at].upper() == letter


@pytest.mark.parametrize("name", REJECTED)
def test_says_why_it_rejects(name: str) -> None:
    text, reason = REJECTED[name]
    assert parse(text) == Rejected(reason)
    assert parse_strict(text) == Rejected(reason)


def test_parts_of_a_question() -> None:
    text = LENIENT["bold"][0]
    options = ("Aspirin", "Ibuprofen", "Heparin", "Warfarin")
    assert parse(text) == Parsed("Which drug?", options, "B", text.index("B\n\n**Explanation"))
    found = parse(LENIENT["wrapped"][0])
    assert isinstance(found, Parsed)
    assert found.options == ("a long\n   option", "y", "z", "another\nlong one")
    assert found.question == "Which drug inhibits platelets?"
    found = parse(LENIENT["headings"][0])
    assert isinstance(found, Parsed) and found.question.startswith("Which drug?") and found.options[3] == "Warfarin"
    found = parse(LENIENT["vitamins on one line"][0])
    assert isinstance(found, Parsed) and found.options == ("Vitamin A.", "Vitamin B.", "Vitamin C.", "Vitamin D.")
    found = parse(LENIENT["marked"][0])
    assert isinstance(found, Parsed) and found.options == ("x", "y", "z", "w")


@pytest.mark.parametrize(
    "name", ["by text", "letter first", "option is correct", "tick", "marked", "blood group by text"]
)
def test_no_answer_point_without_label_and_letter(name: str) -> None:
    found = parse(LENIENT[name][0])
    assert isinstance(found, Parsed) and found.at is None


def test_options_are_compared_without_case_and_final_stop() -> None:
    for last, distinct in (("Warfarin", True), ("aspirin.", False)):
        found = parse(PLAIN.replace("Warfarin", last))
        assert isinstance(found, Parsed) and found.distinct is distinct


def test_strict_takes_the_plain_form_alone() -> None:
    found = {name for name, (text, _) in LENIENT.items() if isinstance(parse_strict(text), Parsed)}
    assert found == {"plain", "said twice"}
    assert parse_strict(PLAIN.replace("\n", "\n\n")) == parse(PLAIN.replace("\n", "\n\n"))
    for changed in (
        PLAIN + "\nMore.",
        PLAIN.replace("Answer: C", "Answer: (C)"),
        PLAIN.replace("Answer: C", "Answer: C. Heparin"),
        PLAIN.replace("B. ", "B) "),
        PLAIN.replace("\nExplanation: It does.", ""),
    ):
        assert isinstance(parse(changed), Parsed)
        assert parse_strict(changed) == Rejected(Reason.NOT_PLAIN)


words = st.lists(
    st.sampled_from(["heart", "acute", "renal", "fever", "dose", "2", "mg", "30%", "(rare)", "beta-blocker", "x_1"]),
    min_size=1,
    max_size=4,
).map(" ".join)
MARKERS = (
    "{u}. ",
    "{u}) ",
    "({u}) ",
    "**{u}.** ",
    "- {u}. ",
    "{l}) ",
    "({l}) ",
    "{u}: ",
    "* **{u})** ",
    "Option {u}: ",
)
DECLARED = (
    "Answer: {u}", "Answer: ({u})", "**Answer:** {u}", "**Correct answer: {u}**", "Correct Answer: {u}. {text}",
    "The correct answer is **{u}**.", "the correct answer is {l}.", "Answer: {l}) {text}", "## Answer\n{u}",
    "Answer:\n**{u}) {text}**", "The right answer is option {u}, since it is.", "{u} is the correct answer.",
    "Answer: {text}", "Correct option: {u}",
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(
    stem=words,
    options=st.lists(words, min_size=4, max_size=4, unique=True),
    place=st.integers(0, 3),
    marker=st.sampled_from(MARKERS),
    declared=st.sampled_from(DECLARED),
    label=st.sampled_from(["Question: ", "**Question 1:** ", "", "### Question\n", "Sure, here it is:\n\nQ: "]),
    blank=st.sampled_from(["\n", "\n\n"]),
    tail=st.sampled_from(["", "Explanation: it is so.", "**Explanation:** it is {text}.", "Hope this helps!"]),
)
def test_a_rendered_question_reads_back(
    stem: str, options: list[str], place: int, marker: str, declared: str, label: str, blank: str, tail: str
) -> None:
    given = {"u": LETTERS[place], "l": LETTERS[place].lower(), "text": options[place]}
    lines = [marker.format(u=k, l=k.lower()) + option for k, option in zip(LETTERS, options, strict=True)]
    text = f"{label}{stem}?\n\n" + "\n".join(lines) + blank + declared.format(**given) + blank + tail.format(**given)
    found = parse(text)
    assert isinstance(found, Parsed), found
    assert (found.letter, found.options, found.distinct) == (LETTERS[place], tuple(options), True)
    assert (found.at is None) == (declared in ("Answer: {text}", "{u} is the correct answer."))
    if found.at is not None:
        assert text[found.at].upper() == LETTERS[place] and not text[found.at - 1].isalnum()


@settings(max_examples=200, deadline=None)
@given(
    pieces=st.lists(
        st.sampled_from(
            ["A. ", "B) ", "(C) ", "D: ", "E. ", "Answer: ", "\n", "C", "x", "**", " is correct", "Question: "]
        ),
        max_size=25,
    )
)
def test_any_text_is_read_or_rejected_and_strict_agrees(pieces: list[str]) -> None:
    text = "".join(pieces)
    found, strict = parse(text), parse_strict(text)
    if isinstance(found, Parsed):
        assert found.letter in LETTERS and all(found.options)
        assert found.at is None or text[found.at].upper() in LETTERS
        assert strict in (found, Rejected(Reason.NOT_PLAIN))
    else:
        assert strict == found


# ------------------------------------------------------------------------------------------------- prompt and run


def test_prompt_names_the_domain_once_and_no_letter_as_the_answer() -> None:
    text = reading.prompt(" cardiology, for instance {drugs} ")
    assert text.count("cardiology, for instance {drugs}") == 1
    assert not any(f"Answer: {k}" in text for k in LETTERS)
    for bad in ("", "  ", "two\nlines"):
        with pytest.raises(UserError, match=r"positions\.domain"):
            reading.prompt(bad)


def fake_ask(texts: Sequence[str]) -> sampling.Ask:
    def ask(prompts: Sequence[str], *, draws: int, max_new_tokens: int) -> list[list[str]]:
        assert list(prompts) == [reading.prompt("medicine")] and draws == len(texts) and max_new_tokens == 99
        return [list(texts)]

    return ask


def table(texts: Sequence[str]) -> pd.DataFrame:
    return measures.run(fake_ask(texts), domain="medicine", answers=len(texts), max_new_tokens=99)


def test_run_makes_a_row_a_text() -> None:
    same = PLAIN.replace("Warfarin", "Aspirin")
    frame = table([PLAIN, "nonsense", same + "\nmore"])
    expected = pd.DataFrame(
        {
            "text": [PLAIN, "nonsense", same + "\nmore"],
            "parsed": [True, False, True],
            "reason": ["", "no options", ""],
            "letter": ["C", "", "C"],
            "strict": [True, False, False],
            "distinct_options": [True, False, False],
        }
    )
    pd.testing.assert_frame_equal(frame, expected)
    with pytest.raises(UserError, match=r"positions\.answers: 0"):
        table([])


# ------------------------------------------------------------------------------------------------------- measures


def total_variation_of(letters: Sequence[str]) -> float:
    return sum(abs(letters.count(k) / len(letters) - 1 / 4) for k in LETTERS) / 2


@pytest.mark.parametrize("n", [1, 2, 3, 6])
def test_expected_total_variation_by_enumeration(n: int) -> None:
    every = [total_variation_of(letters) for letters in itertools.product(LETTERS, repeat=n)]
    assert measures.uniform_total_variation(n) == pytest.approx(sum(every) / 4**n, rel=1e-12)


def test_expected_total_variation_falls_with_the_root_of_n() -> None:
    """Normal limit: 2 E|Z| sqrt(3/16/n), E|Z| = sqrt(2/pi)."""
    n = 100_000
    assert measures.uniform_total_variation(n) == pytest.approx(2 * math.sqrt(2 / math.pi * 3 / 16 / n), rel=1e-4)


def test_measures_against_closed_forms() -> None:
    letters = ["A"] * 30 + ["B"] * 40 + ["C"] * 5 + ["D"] * 25
    found = measures.letter_measures(letters)
    assert [found[f"frequency_{k}"] for k in LETTERS] == [0.3, 0.4, 0.05, 0.25]
    assert found["total_variation"] == pytest.approx(0.2)
    assert found["max_deviation"] == pytest.approx(0.2)
    chi_square = (5**2 + 15**2 + 20**2) / 25
    assert found["chi_square"] == pytest.approx(chi_square)
    # the survival function of chi-square with three degrees of freedom
    tail = math.erfc(math.sqrt(chi_square / 2)) + math.sqrt(2 * chi_square / math.pi) * math.exp(-chi_square / 2)
    assert found["p_value"] == pytest.approx(tail)
    # Goodman: the ends solve n (f - p)^2 = a p (1 - p)
    a = stats.chi2.ppf(1 - 0.05 / 4, 1)
    for k, share in zip(LETTERS, (0.3, 0.4, 0.05, 0.25), strict=True):
        for end in (found[f"frequency_{k}_low"], found[f"frequency_{k}_high"]):
            assert 100 * (share - end) ** 2 == pytest.approx(a * end * (1 - end))


def test_summary_counts_and_the_strict_parser_beside() -> None:
    texts = [PLAIN, PLAIN.replace("Answer: C", "Answer: A"), PLAIN.replace("Answer: C", "Answer: (B)"), "", "?"]
    found = measures.summary(table(texts))
    assert (found["answers"], found["parsed"], found["strict"]) == (5, 3, 2)
    assert (found["parse_rate"], found["strict_rate"], found["distinct_rate"]) == (0.6, 0.4, 1.0)
    assert (found["parse_low"], found["parse_high"]) == wilson(3, 5)
    assert (found["strict_low"], found["strict_high"]) == wilson(2, 5)
    assert found["total_variation"] == pytest.approx(total_variation_of("CAB"))
    assert found["strict_total_variation"] == pytest.approx(total_variation_of("CA"))
    assert found["total_variation_uniform"] == measures.uniform_total_variation(3)
    assert found["strict_total_variation_uniform"] == measures.uniform_total_variation(2)


def test_nothing_parsed_is_no_result() -> None:
    found = measures.summary(table(["", "no question here"]))
    known = {"answers": 2, "parsed": 0, "parse_rate": 0, "parse_low": wilson(0, 2)[0], "parse_high": wilson(0, 2)[1]}
    known |= {name.replace("parse", "strict"): value for name, value in known.items() if name.startswith("parse_")}
    known |= {"strict": 0}
    assert {name: found[name] for name in known} == known
    rest = [value for name, value in found.items() if name not in known]
    assert len(rest) == 3 * 4 + 5 + 1 + 2 and all(math.isnan(value) for value in rest)


# ------------------------------------------------------------------------------------------------- probabilities


@pytest.fixture(scope="module")
def chat(digit_tokenizer: PreTrainedTokenizerFast) -> chatformat.ChatFormat:
    return chatformat.chat_format(digit_tokenizer)


def test_exact_equals_a_full_pass(any_model: PreTrainedModel, chat: chatformat.ChatFormat) -> None:
    bold, lower = LENIENT["bold"][0], LENIENT["lower case"][0]
    texts = [PLAIN, "nonsense", LENIENT["by text"][0], bold, PLAIN.replace("It", "Ït"), lower, PLAIN]
    found = measures.run_exact(Body(any_model), chat, table(texts), domain="medicine", questions=3)
    assert found["row"].tolist() == [0, 2, 3, 4, 5]  # the last is not needed
    assert found["letter"].tolist() == ["C", "C", "B", "C", "D"]
    assert found["reason"].tolist() == ["", Reason.NO_LETTER, "", Reason.OTHER_TOKENS, ""]
    asked = chat.prompt_ids(reading.prompt("medicine"))
    expected = []
    for text, label, letters in (
        (PLAIN, "\nAnswer: ", "ABCD"),
        (bold, "\n**Answer:** ", "ABCD"),
        (lower, "\nanswer: ", "abcd"),
    ):
        start = text[: text.index(label) + len(label)]
        ids = [*asked, *chat.answer_ids([start])[0]]
        with torch.no_grad():
            p = any_model(input_ids=torch.tensor([ids])).logits[0, -1].double().softmax(-1)
        four = p[[chat.answer_ids([k])[0][0] for k in letters]].numpy()
        expected.append([*(four / four.sum()), four.sum()])
    used = found[found["reason"] == ""]
    np.testing.assert_allclose(used[[*LETTERS, "mass"]].to_numpy(float), expected, rtol=2e-4)
    assert np.ptp(used[list(LETTERS)].to_numpy(float)) > 0.05  # else any answer would do
    assert found.loc[found["reason"] != "", [*LETTERS, "mass"]].isna().all(axis=None)


def test_exact_of_nothing(llama: PreTrainedModel, chat: chatformat.ChatFormat) -> None:
    found = measures.run_exact(Body(llama), chat, table(["nonsense"]), domain="medicine", questions=5)
    assert found.columns.tolist() == ["row", "letter", *LETTERS, "mass", "reason"] and len(found) == 0
    summary = measures.exact_summary(found, resamples=10, seed=0)
    assert (summary.pop("questions"), summary.pop("rejected")) == (0, 0)
    assert len(summary) == 1 + 5 * 3 + 1 and all(math.isnan(value) for value in summary.values())
    with pytest.raises(UserError, match=r"positions\.questions: 0"):
        measures.run_exact(Body(llama), chat, table([PLAIN]), domain="medicine", questions=0)


def word_chat(words: Sequence[str]) -> chatformat.ChatFormat:
    """Words with the space before them are tokens; what is not in `words` falls apart into characters."""
    known = "|".join(sorted(map(re_escape, words), key=len, reverse=True))
    return chatformat.chat_format(chat_tokenizer([*PRINTABLE, *words], rf"{known}|[\s\S]"))


def re_escape(word: str) -> str:
    return word.replace("(", r"\(").replace(")", r"\)").replace(".", r"\.")


def test_letters_are_compared_in_the_shape_of_the_declared_one() -> None:
    chat = word_chat([" A", " B", " C", " D", "Answer:"])
    vocabulary = chat.tokenizer.get_vocab()
    at = PLAIN.index("Answer: C") + 8
    point = measures.answer_point(chat, vocabulary, PLAIN, at)
    assert isinstance(point, AnswerPoint)
    assert point.letters == [vocabulary[f" {k}"] for k in LETTERS]
    assert chat.decode(point.before) == PLAIN[: at - 1]
    bracket = PLAIN.replace("Answer: C", "Answer: (C)")
    point = measures.answer_point(chat, vocabulary, bracket, at + 1)
    assert isinstance(point, AnswerPoint)
    assert point.letters == [vocabulary[k] for k in LETTERS]


def test_rejects_where_the_four_tokens_do_not_exist() -> None:
    at = PLAIN.index("Answer: C") + 8
    for words in ([" A", " B", " C"], [" C\n"], ["r: C"]):
        chat = word_chat(words)
        assert measures.answer_point(chat, chat.tokenizer.get_vocab(), PLAIN, at) == Rejected(Reason.NO_TOKENS)
    # " CC" holds the letter twice: which one is meant is not known
    chat = word_chat([f" {k}{k}" for k in LETTERS])
    assert measures.answer_point(chat, chat.tokenizer.get_vocab(), "x CC", 2) == Rejected(Reason.NO_TOKENS)


def test_real_tokenizers_have_the_four_tokens(real_tokenizer: PreTrainedTokenizerBase) -> None:
    chat = chatformat.chat_format(real_tokenizer)
    vocabulary = real_tokenizer.get_vocab()
    for name in ("plain", "bold", "brackets", "lower case", "sentence", "boxed", "full-width colon and windows lines"):
        text = "Größe ✅ " + LENIENT[name][0]
        found = parse(text)
        assert isinstance(found, Parsed) and found.at is not None
        point = measures.answer_point(chat, vocabulary, text, found.at)
        assert isinstance(point, AnswerPoint), name
        whole = chat.answer_ids([text])[0]
        assert whole[: len(point.before)] == point.before
        assert point.letters[LETTERS.index(found.letter)] == whole[len(point.before)]
        assert len(set(point.letters)) == 4


# ------------------------------------------------------------------------------------------------ their summary


def exact_table(p: np.ndarray, mass: float = 0.5) -> pd.DataFrame:
    return pd.DataFrame(p, columns=list(LETTERS)).assign(mass=mass, reason="", letter="A", row=range(len(p)))


def test_variance_ratio_of_a_known_law() -> None:
    """Dirichlet with total weight w: Var(p_k) = P_k (1 - P_k) / (w + 1), so the ratio is w + 1."""
    weights = np.array([4.0, 2.0, 1.0, 1.0])
    p = np.random.default_rng(0).dirichlet(weights, 40_000)
    found = measures.exact_summary(exact_table(p), resamples=20, seed=0)
    assert found["variance_ratio"] == pytest.approx(9, rel=0.02)
    assert [found[f"probability_{k}"] for k in LETTERS] == pytest.approx(weights / 8, abs=0.01)
    assert found["total_variation"] == pytest.approx(0.25, abs=0.01)
    assert found["mass"] == pytest.approx(0.5)


def test_variance_ratio_is_what_counting_loses() -> None:
    """Against experiments: squared errors of counted shares over those of mean probabilities."""
    rng = np.random.default_rng(1)
    n, repeats = 30, 4000
    p = rng.dirichlet([2.0, 1.0, 1.0, 0.5], (repeats, n))
    letters = (rng.random((repeats, n, 1)) > p.cumsum(-1)[..., :3]).sum(-1)
    shares = np.stack([(letters == k).mean(1) for k in range(4)], -1)
    lost = shares.var(axis=0).sum() / p.mean(1).var(axis=0).sum()
    sizes = [measures.exact_summary(exact_table(q), resamples=1, seed=0)["variance_ratio"] for q in p[:300]]
    assert np.median(sizes) == pytest.approx(lost, rel=0.06)


def test_a_question_that_has_settled_its_letter_gains_nothing() -> None:
    p = np.eye(4)[np.random.default_rng(2).integers(4, size=50)]
    found = measures.exact_summary(exact_table(p), resamples=100, seed=0)
    assert found["variance_ratio"] == pytest.approx(1)
    same = measures.exact_summary(exact_table(np.full((5, 4), 0.25)), resamples=100, seed=0)
    assert math.isnan(same["variance_ratio"]) and same["total_variation"] == 0


def test_intervals_of_the_mean_agree_with_the_normal_ones() -> None:
    p = np.random.default_rng(3).dirichlet([3.0, 2.0, 2.0, 1.0], 800)
    frame = pd.concat([exact_table(p), exact_table(p[:3]).assign(reason="x", A=np.nan, mass=np.nan)])
    found = measures.exact_summary(frame, resamples=4000, seed=0)
    assert (found["questions"], found["rejected"]) == (800, 3)
    assert found == measures.exact_summary(frame, resamples=4000, seed=0)
    for k, column in zip(LETTERS, p.T, strict=True):
        half = 1.96 * column.std(ddof=1) / math.sqrt(800)
        assert found[f"probability_{k}"] == pytest.approx(column.mean())
        assert found[f"probability_{k}_low"] == pytest.approx(column.mean() - half, abs=half / 10)
        assert found[f"probability_{k}_high"] == pytest.approx(column.mean() + half, abs=half / 10)
    assert found["total_variation_low"] < found["total_variation"] < found["total_variation_high"]


def test_one_question_has_no_interval() -> None:
    found = measures.exact_summary(exact_table(np.array([[0.7, 0.1, 0.1, 0.1]])), resamples=10, seed=0)
    assert found["total_variation"] == pytest.approx(0.45)
    assert math.isnan(found["total_variation_low"]) and math.isnan(found["variance_ratio"])
