"""The default model itself: a known prompt, its exact mass on numbers, and one training step."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

from calibnb.laws.settings import TrainingSettings
from calibnb.models import chatformat, fetching, loading
from calibnb.pipeline import params
from calibnb.training import adapters, curriculum, objective, packing
from calibnb.trees.attention import Body
from calibnb.trees.number_search import number_tokens, open_law
from calibnb.trees.sampling import sample

ROOT = Path(__file__).parent.parent
PROMPT = "Think of a whole number from one to six and answer with the number alone."

pytestmark = [pytest.mark.weights, pytest.mark.slow]


@pytest.fixture(scope="module")
def weights() -> Path:
    """The pipeline's weights if it has run, otherwise fetched once for the tests."""
    made = ROOT / "models" / "smollm2-135m" / "weights"
    if (made / "card.json").exists():
        return made
    own = Path(__file__).parent / ".cache" / "smollm2-135m"
    if not (own / "card.json").exists():
        fetching.fetch("smollm2-135m", own)
    return own


@pytest.fixture(scope="module")
def loaded(weights: Path) -> tuple[PreTrainedModel, chatformat.ChatFormat]:
    model, tokenizer = loading.load(weights, dtype=torch.float32)
    return model, chatformat.chat_format(tokenizer)


def test_exact_mass_on_numbers_of_a_known_prompt(loaded: tuple[PreTrainedModel, chatformat.ChatFormat]) -> None:
    model, chat = loaded
    numbers = number_tokens(chat.tokenizer.get_vocab())
    assert sorted(numbers.text) == ["-", ".", *"0123456789"]
    ids = chat.prompt_ids(PROMPT)
    law = open_law(Body(model), ids, numbers, chat.end_id, tolerance=0.1, max_nodes=2000, nodes_per_pass=64)
    assert law.certificate <= 0.1 * law.mass.sum()
    # by brute force: "3" and then the end of the turn
    logp = torch.log_softmax(model(torch.tensor([ids])).logits[0, -1].double(), -1)
    three = chat.answer_ids(["3"])[0]
    after = torch.log_softmax(model(torch.tensor([[*ids, *three]])).logits[0, -1].double(), -1)
    expected = float((logp[three[0]] + after[chat.end_id]).detach().exp())
    assert law.mass[law.text.index("3")] == pytest.approx(expected, rel=1e-3)
    # and by sampling, within five standard errors
    drawn = sample(Body(model), chat, [ids], draws=300, max_new_tokens=8, batch=300, seed=1)
    texts = dict(drawn)[0]
    share = sum(t in set(law.text) for t in texts) / 300
    number = float(law.mass.sum())
    assert abs(share - number) < 5 * (number * (1 - number) / 300) ** 0.5 + law.certificate


def test_one_training_step_lowers_the_loss(weights: Path) -> None:
    study = params.load(ROOT / "params.yaml")
    everywhere = {"lora_targets": "all-linear", "lora_rank": 32, "lora_alpha": 64.0}
    method = study.finetune["soft"].model_copy(update=everywhere)
    model, tokenizer = loading.load(weights, dtype=torch.float32)
    chat = chatformat.chat_format(tokenizer)
    settings = TrainingSettings.of(study.families, study.data.validation_share, study.data.significant_digits)
    order = curriculum.prompts_of_run(settings, method, seed=1)
    examples = list(islice(curriculum.make_examples(order, method, study.prompt, chat, 1, method.estimator), 4))
    loss = objective.TrieLoss(adapters.with_adapter(model, method))
    batch = packing.batch(examples, torch.device("cpu"))
    optimizer = torch.optim.AdamW([p for p in loss.parameters() if p.requires_grad], lr=1e-3)
    before = loss(batch)
    before.backward()
    optimizer.step()
    assert float(loss(batch).detach()) < float(before.detach()) - 0.1
