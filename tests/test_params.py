"""params.yaml: the committed files are right, and every way to get one wrong gives one plain line."""

from __future__ import annotations

import copy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from calibnb import yaml_files
from calibnb.errors import UserError
from calibnb.laws import specs
from calibnb.laws.families import FAMILIES
from calibnb.laws.grids import FamilyGrid
from calibnb.models.sources import TABLE
from calibnb.pipeline import params


@pytest.fixture(scope="module")
def root(pytestconfig):
    return pytestconfig.rootpath


@pytest.fixture(scope="module")
def study(root) -> dict[str, Any]:
    return params.read(root / "params.yaml")


def changed(raw: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    """A copy with one dotted key set (`...` removes it)."""
    raw = copy.deepcopy(raw)
    *path, last = [int(part) if part.isdigit() else part for part in key.split(".")]
    block: Any = raw
    for part in path:
        block = block[part]
    if value is ...:
        del block[last]
    else:
        block[last] = value
    return raw


def problem(raw: dict[str, Any]) -> str:
    with pytest.raises(UserError) as caught:
        params.parse(raw)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_the_study_is_valid(root, study):
    loaded = params.load(root / "params.yaml")
    assert list(loaded.families) == list(study["families"])
    assert set(loaded.families) == set(FAMILIES)
    assert loaded.finetune["hard"].lora_targets == "attention"
    assert loaded.families["gaussian"].train["sigma"].points()[5] == pytest.approx(1.0)


@pytest.mark.parametrize("name", ["full", "paper", "demo", "small", "test"])
def test_profiles_are_valid_and_say_only_what_they_change(root, study, name):
    profile = yaml_files.read(root / "profiles" / f"{name}.yaml")
    params.parse(params.merge(study, profile))

    def leaves(block, path=()):
        for key, value in block.items():
            if isinstance(value, dict):
                yield from leaves(value, (*path, key))
            else:
                yield (*path, key), value

    for path, _ in leaves(profile):
        parent: Any = study
        for part in path[:-1]:
            parent = parent[part]
        assert path[-1] in parent


def test_the_paper_profile_has_the_papers_budgets(root, study):
    paper = params.parse(params.merge(study, yaml_files.read(root / "profiles" / "paper.yaml")))
    soft, hard = paper.finetune["soft"], paper.finetune["hard"]
    assert (soft.epochs * soft.draws_per_prompt, hard.epochs * hard.draws_per_prompt) == (3, 32)
    assert (soft.space.max_bins, hard.space.max_bins) == (1001, 16384)
    assert soft.max_grad_norm is None


def test_methods_of_the_study_have_matched_budgets(study):
    blocks = [dict(study["finetune"][name]) for name in study["methods"]]
    for block in blocks:
        del block["estimator"], block["completions"], block["mixture"], block["kl_to_base"]
    assert all(block == blocks[0] for block in blocks)


@pytest.mark.parametrize("profile", ["full", "methods", "test"])
def test_a_mixture_has_a_method_without_it_beside(root, study, profile):
    merged = params.merge(study, yaml_files.read(root / "profiles" / f"{profile}.yaml"))
    measured = params.parse(merged).measured("capability")

    def key(block):
        return {k: v for k, v in block.items() if k not in ("mixture", "kl_to_base")}

    blocks = merged["finetune"]
    mixtures = [name for name in merged["methods"] if blocks[name]["mixture"]]
    other = ["paired"] if profile == "methods" else []  # there it is on words alone
    assert mixtures and [name for name in mixtures if name not in measured] == other
    plain = [key(blocks[name]) for name in measured if name in blocks and name not in mixtures]
    assert [name for name in mixtures if key(blocks[name]) not in plain] == []


UNKNOWN = "unknown key; allowed"
NO_MODEL = f"models.0: must be one of {', '.join(TABLE)}, a hub id org/name, or a folder"
CASES: list[tuple[str, Any, str]] = [
    # unknown and missing keys
    (
        "sedes",
        [1],
        "sedes: unknown key; allowed: models, methods, variants, seeds, bootstrap, budget_tflop, compute, prompt,",
    ),
    ("finetune.soft.lerning_rate", 1e-4, f"finetune.soft.lerning_rate: {UNKNOWN}: estimator, draws, "),
    ("finetune.soft.lora", 8, f"finetune.soft.lora: {UNKNOWN}: estimator, draws, "),
    (
        "benchmarks.structured.open.depth",
        8,
        f"benchmarks.structured.open.depth: {UNKNOWN}: tolerance, max_nodes, nodes_per_pass",
    ),
    ("families.gaussian.trian", {}, f"families.gaussian.trian: {UNKNOWN}: train, unseen, held_out, selected"),
    ("families.gaussian.train.sd", [1], f"families.gaussian.train.sd: {UNKNOWN}: mu, sigma"),
    ("families.gaussian.selected.0.sd", 1, f"families.gaussian.selected.0.sd: {UNKNOWN}: mu, sigma"),
    (
        "families.normal",
        {"held_out": {}, "selected": []},
        "families.normal: unknown family; allowed: uniform,",
    ),
    ("seeds", ..., "seeds: must be given, got nothing"),
    ("finetune.soft.epochs", ..., "finetune.soft.epochs: must be given, got nothing"),
    ("families.gaussian.train.mu", ..., "families.gaussian.train.mu: must be given, got nothing"),
    ("families.gaussian.selected.0.mu", ..., "families.gaussian.selected.0.mu: must be given, got nothing"),
    ("families.gaussian.selected", ..., "families.gaussian.selected: must be given, got nothing"),
    # types
    ("models", "smollm2-135m", 'models: must be a list with at least one entry, got "smollm2-135m"'),
    ("models", [], "models: must be a list with at least one entry, got []"),
    ("models", ["../up"], NO_MODEL),
    ("models", ["./a/../b"], NO_MODEL),
    ("models", ["a/b/c"], NO_MODEL),
    ("models", [3], NO_MODEL),
    ("models", ["smolm2-135m"], NO_MODEL),
    ("models", ["a/b", "./a/b"], 'models: must be names that differ as paths, got ["a/b", "./a/b"]'),
    ("seeds", [11, 11], "seeds: must be a list without repeats, got [11, 11]"),
    ("seeds", [-1], "seeds.0: must be >= 0, got -1"),
    ("seeds", [1.5], "seeds.0: must be an integer, got 1.5"),
    ("seeds", [True], "seeds.0: must be an integer, got true"),
    ("seeds", [2**32], "seeds.0: must be < 4294967296, got 4294967296"),
    ("compute", None, "compute: must be a block of keys, got null"),
    ("compute.device", "gpu", 'compute.device: must be auto, cpu, cuda or cuda:N, got "gpu"'),
    ("compute.dtype", "fp16", 'compute.dtype: must be one of auto, bfloat16, float32, got "fp16"'),
    ("compute.trust_remote_code", "no", 'compute.trust_remote_code: must be true or false, got "no"'),
    (
        "prompt.template",
        "{distribution}",
        "prompt.template: must be text that holds {distribution} and {parameters}",
    ),
    ("prompt.template", "{distribution} {parameters} {x}", "prompt.template: must be text that holds"),
    ("prompt.template", "{distribution} {parameters", "prompt.template: must be text that holds"),
    ("prompt.template", "{distribution!r} {parameters}", "prompt.template: must be text that holds"),
    ("prompt.template", 5, "prompt.template: must be text that holds"),
    ("prompt.parameter_names", "greek", 'prompt.parameter_names: must be one of words, symbols, got "greek"'),
    ("data.validation_share", 0, "data.validation_share: must be > 0, got 0"),
    ("data.validation_share", 0.6, "data.validation_share: must be <= 0.5, got 0.6"),
    ("data.significant_digits", 5, "data.significant_digits: must be <= 4, got 5"),
    ("finetune.soft", None, "finetune.soft: must be a block of keys, got null"),
    (
        "finetune.soft.estimator",
        "path",
        'finetune.soft.estimator: must be one of paths, samples, trie, got "path"',
    ),
    ("finetune.soft.draws", 3, "finetune.soft.draws: must be one of iid, stratified, got 3"),
    ("finetune.soft.draws_per_prompt", 0, "finetune.soft.draws_per_prompt: must be >= 1, got 0"),
    ("finetune.soft.completions", "none", "finetune.soft.completions: must be one of own, other,"),
    ("finetune.soft.parameters", "x", "finetune.soft.parameters: must be one of grid, continuous,"),
    ("finetune.soft.family_weights", "x", "finetune.soft.family_weights: must be one of settings, equal,"),
    ("benchmarks.perplexity.bytes_per_slice", 1000, "benchmarks.perplexity.bytes_per_slice: must be >= 1024, got 1000"),
    ("finetune.soft.average", "mean", 'finetune.soft.average: must be one of tokens, path, got "mean"'),
    ("finetune.soft.epochs", 0, "finetune.soft.epochs: must be > 0, got 0"),
    ("finetune.soft.epochs", "1", 'finetune.soft.epochs: must be a number, got "1"'),
    ("finetune.soft.epochs", float("inf"), "finetune.soft.epochs: must be a finite number, got Infinity"),
    ("finetune.soft.prompts_per_step", 2.0, "finetune.soft.prompts_per_step: must be an integer, got 2.0"),
    (
        "finetune.soft.accumulation_steps",
        17,
        "finetune.soft.accumulation_steps: must be <= prompts_per_step = 16",
    ),
    ("finetune.soft.learning_rate", 0, "finetune.soft.learning_rate: must be > 0, got 0"),
    ("finetune.soft.learning_rate", 2, "finetune.soft.learning_rate: must be <= 1, got 2"),
    ("finetune.soft.weight_decay", -1, "finetune.soft.weight_decay: must be >= 0, got -1"),
    ("finetune.soft.warmup_share", 1, "finetune.soft.warmup_share: must be < 1, got 1"),
    ("finetune.soft.max_grad_norm", 0, "finetune.soft.max_grad_norm: must be > 0, got 0"),
    ("finetune.soft.validations", 0, "finetune.soft.validations: must be >= 1, got 0"),
    ("finetune.soft.lora_rank", 0, "finetune.soft.lora_rank: must be >= 1, got 0"),
    ("finetune.soft.lora_alpha", 0, "finetune.soft.lora_alpha: must be > 0, got 0"),
    ("finetune.soft.lora_dropout", 1.0, "finetune.soft.lora_dropout: must be < 1, got 1.0"),
    (
        "finetune.soft.lora_targets",
        "all",
        "finetune.soft.lora_targets: must be one of attention, all-linear,",
    ),
    (
        "finetune.soft.discretisation",
        "x",
        "finetune.soft.discretisation: must be one of thin, coarsen,",
    ),
    ("finetune.soft.num_decimals", 9, "finetune.soft.num_decimals: must be <= 8, got 9"),
    ("finetune.soft.num_decimals", -1, "finetune.soft.num_decimals: must be >= 0, got -1"),
    ("finetune.soft.max_bins", 1, "finetune.soft.max_bins: must be >= 2, got 1"),
    ("finetune.soft.max_bins", 65537, "finetune.soft.max_bins: must be <= 65536, got 65537"),
    (
        "benchmarks.structured.settings.unseen",
        "some",
        "benchmarks.structured.settings.unseen: must be an integer >= 1 or one of selected,",
    ),
    (
        "benchmarks.structured.settings.unseen",
        0,
        "benchmarks.structured.settings.unseen: must be an integer >= 1 or one of selected,",
    ),
    (
        "benchmarks.structured.settings.in_range",
        "selected",
        "benchmarks.structured.settings.in_range: must be an integer >= 1 or one of all",
    ),
    (
        "benchmarks.structured.settings.in_range",
        True,
        "benchmarks.structured.settings.in_range: must be an integer >= 1 or one of all",
    ),
    ("benchmarks.structured.open.tolerance", 0, "benchmarks.structured.open.tolerance: must be > 0, got 0"),
    ("benchmarks.structured.open.tolerance", 1, "benchmarks.structured.open.tolerance: must be < 1, got 1"),
    ("benchmarks.structured.open.max_nodes", 0, "benchmarks.structured.open.max_nodes: must be >= 1, got 0"),
    (
        "benchmarks.structured.sampled.settings",
        -1,
        "benchmarks.structured.sampled.settings: must be an integer >= 1 or one of all, none",
    ),
    ("benchmarks.structured.sampled.draws", 0, "benchmarks.structured.sampled.draws: must be >= 1, got 0"),
    ("bootstrap", 0, "bootstrap: must be >= 1, got 0"),
    ("benchmarks.openended.draws", 0, "benchmarks.openended.draws: must be >= 1, got 0"),
    (
        "benchmarks.openended.categories",
        [],
        "benchmarks.openended.categories: must be a list with at least one entry, got []",
    ),
    (
        "benchmarks.openended.categories",
        ["word", "wrod"],
        "benchmarks.openended.categories: must be a list of names from calibnb/benchmarks/openended/categories.yaml",
    ),
    (
        "benchmarks.openended.categories",
        ["word", "word"],
        "benchmarks.openended.categories: must be a list without repeats",
    ),
    # grids
    ("families.gaussian.train.sigma", [], "families.gaussian.train.sigma: must be a list of numbers, got []"),
    (
        "families.gaussian.train.sigma",
        ["1"],
        'families.gaussian.train.sigma: must be a list of numbers, got ["1"]',
    ),
    (
        "families.gaussian.train.sigma",
        [10**400],
        "families.gaussian.train.sigma: must be a list of numbers, got [1000",
    ),
    (
        "families.gaussian.train.sigma",
        [1, 1],
        "families.gaussian.train.sigma: must be a list without repeats",
    ),
    (
        "families.gaussian.train.sigma",
        1,
        "families.gaussian.train.sigma: must be a list of numbers, {lin: [low, high,",
    ),
    (
        "families.gaussian.train.sigma",
        {"geo": [1, 2, 3]},
        "families.gaussian.train.sigma: must be a list of numbers, {",
    ),
    (
        "families.gaussian.train.sigma",
        {"lin": [1, 2]},
        "families.gaussian.train.sigma: must be a list of numbers, {",
    ),
    (
        "families.gaussian.train.sigma",
        {"lin": [1, 2, 2.5]},
        'families.gaussian.train.sigma: must be given with an integer count from 2 to 100000, got {"lin"',
    ),
    (
        "families.gaussian.train.sigma",
        {"lin": [2, 1, 3]},
        "families.gaussian.train.sigma: must be given with low < high",
    ),
    (
        "families.gaussian.train.sigma",
        {"log": [0, 1, 3]},
        "families.gaussian.train.sigma: must be given with low > 0",
    ),
    (
        "families.gaussian.train.sigma",
        {"lin": [1, 2, 10000]},
        "families.gaussian.train: must be at most 100000 settings",
    ),
    ("families.gaussian.train.sigma", [-1], "families.gaussian.train.sigma: must be > 0, got -1"),
    (
        "families.gaussian.unseen.sigma",
        {"lin": [0, 1, 3]},
        "families.gaussian.unseen.sigma: must be > 0, got 0",
    ),
    ("families.gaussian.selected.0.sigma", -1, "families.gaussian.selected.0.sigma: must be > 0, got -1"),
    (
        "families.gaussian.selected.0.sigma",
        "3",
        'families.gaussian.selected.0.sigma: must be a number, got "3"',
    ),
    ("families.gaussian.selected", {}, "families.gaussian.selected: must be a list, got {}"),
    ("families.bernoulli.held_out.p", [1.2], "families.bernoulli.held_out.p: must be in [0, 1], got 1.2"),
    ("families.binomial.train.n", [2.5], "families.binomial.train.n: must be an integer >= 1, got 2.5"),
    (
        "families.truncnorm.held_out.upper",
        [-3],
        "families.truncnorm.held_out.lower: must be < upper = -3, got -2",
    ),
    (
        "families.triangular.train.mode_fraction",
        [1],
        "families.triangular.train.mode_fraction: must be in (0, 1), got 1",
    ),
    ("families.uniform.train.width", [1e-7], "families.uniform.train.a: must be < b = -5, got -5"),
    ("families.hypergeometric.train.N", [81], "families.hypergeometric.train.N: must be <= M = 30, got 81"),
    (
        "families.exponential.train.lambda",
        [1.00001, 1.00002],
        "families.exponential.train: must be settings that differ at 4 significant digits, got {",
    ),
    (
        "families.gaussian.train",
        ...,
        "families.gaussian: must be given train and unseen, or held_out, got unseen",
    ),
    (
        "families.poisson.train",
        {"lambda": [1]},
        "families.poisson: must be given train and unseen, or held_out, got tr",
    ),
    (
        "families.poisson.held_out",
        ...,
        "families.poisson: must be given train and unseen, or held_out, got none of them",
    ),
    ("families", {}, "families: must be at least one family, got none"),
    ("families", [], "families: must be a block of keys, got []"),
    (
        "families.chi_square.unseen.nu",
        [20, 21],
        "families.chi_square.unseen: must be settings that are not in train, got chi_square(nu=20)",
    ),
    # between keys
    (
        "methods",
        ["soft", "medium"],
        'methods: must be among the blocks of finetune (soft, hard, format, told, mixed, paired), got "medium"',
    ),
    ("methods", ["base"], "methods.0: must be a name of lower-case letters, digits,"),
    ("methods", ["a b"], "methods.0: must be a name of lower-case letters, digits,"),
    ("methods", ["temperature"], "methods.0: must be a name of lower-case letters, digits,"),
    ("methods", ["on"], "methods.0: must be a name of lower-case letters, digits,"),
    ("methods", ["123"], "methods.0: must be a name of lower-case letters, digits,"),
    ("methods", ["soft"], 'variants: must be among base, temperature, soft, got "format"'),
    (
        "temperature.method",
        "best",
        "temperature.method: must be among the blocks of finetune (soft, hard, format, told, mixed, paired), got",
    ),
    ("temperature.settings", 0, "temperature.settings: must be >= 1, got 0"),
    (
        "benchmarks.baselines.categories",
        "all",
        "benchmarks.baselines.categories: must be a list with at least one entry",
    ),
    ("benchmarks.baselines.draws", 1.5, "benchmarks.baselines.draws: must be an integer, got 1.5"),
    (
        "benchmarks.baselines.ways",
        [],
        "benchmarks.baselines.ways: must be a list with at least one entry, got []",
    ),
    ("benchmarks.baselines.ways", ["ssot", "sot"], "benchmarks.baselines.ways.1: must be one of ssot, verbalised, "),
    # mixtures, and what they cost
    ("finetune.mixed.mixture.shares", 1, f"finetune.mixed.mixture.shares: {UNKNOWN}: source, share, prompts_per_step"),
    ("finetune.mixed.mixture.share", 1.0, "finetune.mixed.mixture.share: must be < 1, got 1.0"),
    ("finetune.mixed.mixture.share", 0.0, "finetune.mixed.mixture.share: must be > 0 where kl_to_base is 0, got 0.0"),
    ("finetune.mixed.mixture.prompts_per_step", 0, "finetune.mixed.mixture.prompts_per_step: must be >= 1, got 0"),
    ("finetune.mixed.mixture.source", "", 'finetune.mixed.mixture.source: must be one line of text, got ""'),
    ("finetune.soft.kl_to_base", 0.5, "finetune.soft.kl_to_base: must be 0 without a mixture, whose prompts it needs"),
    ("finetune.soft.kl_to_base", -1, "finetune.soft.kl_to_base: must be >= 0, got -1"),
    ("finetune.soft.mixture", 3, "finetune.soft.mixture: must be a block of keys, got 3"),
    (
        "benchmarks.capability.variants",
        ["soft"],
        "benchmarks.capability.variants: must hold base, which the others are",
    ),
    (
        "benchmarks.perplexity.variants",
        ["soft"],
        "benchmarks.perplexity.variants: must hold base, which the others are",
    ),
    ("variants", ["base", "temperature", "format", "soft"], "benchmarks.capability.variants: must be base and"),
    (
        "benchmarks.capability.variants",
        ["base", "softer"],
        "benchmarks.capability.variants: must be among the study's (b",
    ),
    ("benchmarks.novelty.variants", "some", 'benchmarks.novelty.variants: must be all, or a list of names, got "some"'),
    (
        "benchmarks.structured.variants",
        ["base"],
        'benchmarks.structured.variants: must hold all of benchmarks.baselines.variants, got ["base"] without format',
    ),
    # methods and their defaults
    ("finetune.defaults", ..., "finetune.defaults: must be given, got nothing"),
    (
        "finetune.defaults.epochs",
        3,
        "finetune.defaults.epochs: must be what a method has (finetune.<method>.epochs), got 3",
    ),
    ("methods", ["defaults"], "methods.0: must be a name of lower-case letters, digits,"),
    ("temperature.method", "defaults", "temperature.method: must be a name of lower-case letters, digits,"),
    ("benchmarks.capability.tasks", "tinyMMLU", "benchmarks.capability.tasks: must be a list with at least one entry"),
    (
        "benchmarks.capability.tasks",
        [3],
        "benchmarks.capability.tasks: must be bundled, or a list of names of the harness's tasks",
    ),
    ("benchmarks.capability.limit", 0, "benchmarks.capability.limit: must be >= 1, got 0"),
    (
        "benchmarks.capability.data",
        "tiny",
        'benchmarks.capability.data: must be null, or a folder from ./ or / on, got "tiny"',
    ),
    (
        "benchmarks.capability.irt",
        "tiny.pkl",
        'benchmarks.capability.irt: must be null, published, or a file from ./ or / on, got "tiny',
    ),
    (
        "benchmarks.capability.irt_sha256",
        "abc",
        "benchmarks.capability.irt_sha256: must be null, or a sha256 of 64 hexadecimal digits",
    ),
    ("benchmarks.perplexity.stride", 2048, "benchmarks.perplexity.stride: must be < window = 2048, got 2048"),
    ("benchmarks.perplexity.window", 1, "benchmarks.perplexity.window: must be >= 2, got 1"),
    ("benchmarks.perplexity.source", "a\nb", "benchmarks.perplexity.source: must be one line of text"),
    ("ordinary.draws", 0, "ordinary.draws: must be >= 1, got 0"),
    ("benchmarks.positions.domain", "", 'benchmarks.positions.domain: must be one line of text, got ""'),
    ("benchmarks.positions.answers", 0, "benchmarks.positions.answers: must be an integer >= 1 or one of none, got 0"),
    ("benchmarks.positions.choice", None, "benchmarks.positions.choice: must be a block of keys, got null"),
    ("benchmarks.positions.choice.questions", 201, "benchmarks.positions.choice.questions: must be <= 200, got 201"),
    ("benchmarks.positions.choice.questions", 0, "benchmarks.positions.choice.questions: must be >= 1, got 0"),
    ("benchmarks.positions.choice.orders", 5, "benchmarks.positions.choice.orders: must be <= 4, got 5"),
    ("benchmarks.positions.choice.batch", 0, "benchmarks.positions.choice.batch: must be >= 1, got 0"),
    ("benchmarks.novelty.prompts", None, "benchmarks.novelty.prompts: must be one line of text, got null"),
    (
        "benchmarks.novelty.reward_model",
        "model",
        "benchmarks.novelty.reward_model: must be null, a hub id org/name, or a folder",
    ),
    ("benchmarks.novelty.classifier_threshold", 1, "benchmarks.novelty.classifier_threshold: must be < 1, got 1"),
    ("benchmarks.novelty.patience", 1.5, "benchmarks.novelty.patience: must be <= 1, got 1.5"),
    (
        "benchmarks.mixing.probabilities",
        [0.5],
        "benchmarks.mixing.probabilities: must be a list of at least two numbers in (0, 1), increasing, got [0.5]",
    ),
    ("benchmarks.mixing.probabilities", [0.5, 0.5], "benchmarks.mixing.probabilities: must be a list of at least two"),
    ("benchmarks.mixing.probabilities", [0.5, 1], "benchmarks.mixing.probabilities: must be a list of at least two"),
    ("benchmarks.mixing.probabilities", 0.5, "benchmarks.mixing.probabilities: must be a list of at least two numbers"),
    ("benchmarks.mixing.pairs", 0, "benchmarks.mixing.pairs: must be an integer >= 1 or one of all, got 0"),
    ("benchmarks.mixing.pairs", 13, "benchmarks.mixing.pairs: must be all or <= 12, as many as there are, got 13"),
    ("benchmarks.mixing.wordings", 7, "benchmarks.mixing.wordings: must be all or <= 6, as many as there are, got 7"),
    ("benchmarks.mixing.batch", 0, "benchmarks.mixing.batch: must be >= 1, got 0"),
    ("benchmarks.sequences.lengths", [2], "benchmarks.sequences.lengths: must be a list of integers >= 3, got [2]"),
    (
        "benchmarks.sequences.lengths",
        [],
        "benchmarks.sequences.lengths: must be a list with at least one entry, got []",
    ),
    ("benchmarks.sequences.laws", 0, "benchmarks.sequences.laws: must be an integer >= 1 or one of all, got 0"),
    ("benchmarks.sequences.laws", 13, "benchmarks.sequences.laws: must be <= 12, as many as there are, got 13"),
    ("benchmarks.sequences.wordings", 3, "benchmarks.sequences.wordings: must be <= 2, as many as there are, got 3"),
    ("benchmarks.language.per_suite", 0, "benchmarks.language.per_suite: must be an integer >= 1 or one of all, got 0"),
    (
        "benchmarks.language.open.nodes_per_pass",
        9999,
        "benchmarks.language.open.nodes_per_pass: must be <= max_nodes = 256, got 9999",
    ),
    (
        "variants",
        ["soft", "other"],
        'variants: must be among base, temperature, format, soft, got "other"',
    ),
    (
        "benchmarks.structured.open.nodes_per_pass",
        5000,
        "benchmarks.structured.open.nodes_per_pass: must be <= max_nodes = 256, got 5000",
    ),
    (
        "benchmarks.structured.settings.in_range",
        1000,
        "benchmarks.structured.settings.in_range: must be <= 195 (the validation settings)",
    ),
    (
        "benchmarks.structured.sampled.settings",
        500,
        "benchmarks.structured.sampled.settings: must be <= 36 (the measured settings), got 500",
    ),
    (
        "benchmarks.structured.settings",
        {"in_range": "none", "unseen": "none", "held_out": "none"},
        "benchmarks.structured.settings: must be at least one setting, got none",
    ),
    (
        "benchmarks.structured.space.max_bins",
        40,
        "benchmarks.structured.space.max_bins: must be >= 135 (the integers of geometric(p=0.05)), got 40",
    ),
    (
        "finetune.hard.max_bins",
        20,
        "finetune.hard.max_bins: must be >= 21 (the integers of binomial(n=20, p=0.2)), got 20",
    ),
    (
        "finetune.hard.num_decimals",
        0,
        "finetune.hard.num_decimals: must leave a number between the 0.001 and 0.999 quantiles",
    ),
]


@pytest.mark.parametrize(("key", "value", "message"), CASES, ids=[f"{key}={value!r:.20}" for key, value, _ in CASES])
def test_every_mistake_is_named_in_one_line(study, key, value, message):
    text = problem(changed(study, key, value))
    assert text.startswith(f"params.yaml: {message}")
    assert ", got " in text or "unknown" in text


def paths(block: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    if isinstance(block, dict):
        inner = [p for key, value in block.items() for p in paths(value, (*path, key))]
        return [path, *inner] if path else inner
    if isinstance(block, list):
        return [path, *(p for i, value in enumerate(block) for p in paths(value, (*path, str(i))))]
    return [path]


JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from([10**400, -(10**400), "auto", 0, 1, 0.5]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["lin", "log", "a"]), inner, max_size=2)
    ),
    max_leaves=4,
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_junk_anywhere_gives_one_line_or_is_valid(study, data):
    # The other families would only make each of the many checks slower.
    keep = ("uniform", "binomial", "hypergeometric", "truncnorm")
    small = {**study, "families": {k: study["families"][k] for k in keep}}
    small = changed(small, "benchmarks.structured.settings", {"in_range": 1, "unseen": "all", "held_out": "all"})
    path = data.draw(st.sampled_from(paths(small)))
    raw = changed(small, ".".join(path), data.draw(JUNK))
    try:
        params.parse(raw)
    except UserError as error:
        assert str(error).startswith("params.yaml: ")
        assert len(str(error).splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1\nb: 2\n", "line 2: must be YAML: "),
        ("a: 1\nb: 2\na: 3\n", "line 3: must be YAML: key a is given twice"),
        ("a:\n  1: x\n", "line 2: must be YAML: a key is not text"),
        ("on: x\n", "line 1: must be YAML: a key is not text"),
        ("a: !!python/object:os.system x\n", "line 1: must be YAML: could not determine a constructor"),
        ("a: *b\n", "line 1: must be YAML: found undefined alias"),
        ("a: \x00\n", "must be YAML: "),
        ("a: 2020-99-99\n", "must be YAML: a value cannot be read (month must be in 1..12)"),
        ("a: " + "[" * 20_000 + "\n", "must be YAML: brackets within brackets, too deep"),
        ("- 1\n", "must be a mapping of keys to values, got [1]"),
        ("", "must be a mapping of keys to values, got null"),
    ],
)
def test_files_that_are_not_parameters(tmp_path, text, message):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        params.load(path)
    assert str(caught.value).startswith(f"{path}: {message}")
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(UserError, match=r"must be a readable file, got: No such file or directory$"):
        params.load(tmp_path / "absent.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"a: \xe9\n")
    with pytest.raises(UserError, match="must be UTF-8 text"):
        params.load(tmp_path / "latin.yaml")


def test_exponents_without_a_point_are_numbers(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text("a: [5e-4, 1E3, -2.5e+1, .5e1, 1e3x, 0x1]")
    assert yaml_files.read(path) == {"a": [5e-4, 1000.0, -25.0, 5.0, "1e3x", 1]}


def test_anchors_and_merge_keys_work(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text("a: &x {b: 1, c: 2}\nd: {<<: *x, b: 3}\n")
    assert yaml_files.read(path) == {"a": {"b": 1, "c": 2}, "d": {"b": 3, "c": 2}}


def test_merge():
    base = {"a": {"b": 1, "c": [1, 2]}, "g": {"log": [1, 2, 3]}, "n": 1.0, "z": {"y": {}}}
    before = copy.deepcopy(base)
    profile = {"a": {"c": [3]}, "g": {"lin": [0, 1, 2]}, "n": None, "z": {"y": None}, "new": 1}
    assert params.merge(base, profile) == {
        "a": {"b": 1, "c": [3]},
        "g": {"lin": [0, 1, 2]},
        "n": None,
        "z": {},
        "new": 1,
    }
    assert base == before
    assert params.merge(base, {}) == base


METHODS = {
    "defaults": {"epochs": 1, "draws": "iid", "mixture": None},
    "soft": {"epochs": 1, "draws": "iid", "mixture": None},
    "hard": {"epochs": 4, "draws": "iid", "mixture": None},
    "mixed": {"epochs": 1, "draws": "iid", "mixture": {"share": 0.5}},
}


@pytest.mark.parametrize(
    ("profile", "changes"),
    [
        ({}, {}),
        ({"soft": {"epochs": 3}}, {"soft": {"epochs": 3}}),
        # What a method has of its own stays, whatever its place.
        ({"defaults": {"epochs": 2}}, {"defaults": {"epochs": 2}, "soft": {"epochs": 2}, "mixed": {"epochs": 2}}),
        (
            {"soft": {"epochs": 3}, "defaults": {"epochs": 2}},
            {"defaults": {"epochs": 2}, "soft": {"epochs": 3}, "mixed": {"epochs": 2}},
        ),
        (
            {"defaults": {"mixture": {"share": 0.1}}},
            {name: {"mixture": {"share": 0.1}} for name in ("defaults", "soft", "hard")},
        ),
        ({"mixed": {"mixture": None}}, {"mixed": {"mixture": None}}),
        ({"near": {"draws": "stratified"}}, {"near": METHODS["defaults"] | {"draws": "stratified"}}),
        (
            {"defaults": {"epochs": 2}, "near": {"draws": "stratified"}},
            {name: {"epochs": 2} for name in ("defaults", "soft", "mixed")}
            | {"near": METHODS["defaults"] | {"epochs": 2, "draws": "stratified"}},
        ),
    ],
)
def test_methods_of_a_profile_inherit_its_defaults(
    profile: dict[str, dict[str, Any]], changes: dict[str, dict[str, Any]]
) -> None:
    before = copy.deepcopy(METHODS)
    expected = {name: METHODS.get(name, {}) | changes.get(name, {}) for name in {**METHODS, **changes}}
    assert params.merge({"finetune": METHODS, "seeds": [1]}, {"finetune": profile}) == {
        "finetune": expected,
        "seeds": [1],
    }
    assert before == METHODS


def test_a_profile_leaves_a_method_out() -> None:
    found = params.merge({"finetune": METHODS}, {"finetune": {"hard": None, "defaults": {"epochs": 2}}})
    assert list(found["finetune"]) == ["defaults", "soft", "mixed"]


# What each profile's own methods have other than the study's of that name, or other than the defaults.
SMALL = {"accumulation_steps": 1, "lora_rank": 32, "lora_alpha": 64, "lora_targets": "all-linear"}
SHORT = SMALL | {"epochs": 0.0714, "validations": 1, "learning_rate": 2.0e-3}
FULL = {"epochs": 1, "validations": 4, "validation_settings": 84}
TINY = SMALL | {"draws_per_prompt": 4, "max_bins": 101, "epochs": 0.06, "prompts_per_step": 4, "learning_rate": 2.0e-3}
TINY |= {"lora_rank": 2, "lora_alpha": 4}
SEEN = "./calibnb/benchmarks/mixing/seen.jsonl"
PAPER = {"draws": "iid", "parameters": "grid", "family_weights": "settings", "discretisation": "thin"}
PAPER |= {"max_bins": 16384, "epochs": 2, "prompts_per_step": 8, "learning_rate": 2.0e-4, "max_grad_norm": None}
PAPER |= {"lora_rank": 16, "lora_alpha": 32, "lora_dropout": 0.05, "lora_targets": "attention"}
PAPER |= {"accumulation_steps": 1, "validations": 4, "validation_settings": 195}
LONG = {"epochs": 1.368, "validations": 4}
PROFILES: dict[str, dict[str, dict[str, Any]]] = {
    "demo": dict.fromkeys(("format", "soft"), SHORT),
    "full": dict.fromkeys(("format", "soft", "hard", "told", "mixed", "paired"), FULL),
    "headline": {name: {} for name in ("format", "soft", "hard")},
    "test": {
        **dict.fromkeys(("format", "soft", "hard"), TINY),
        "mixed": TINY | {"mixture": {"source": "self", "share": 0.25, "prompts_per_step": 2}, "kl_to_base": 0.1},
    },
    "paper": {
        "format": PAPER,
        "hard": PAPER,
        "soft": PAPER | {"draws_per_prompt": 1, "max_bins": 1001, "average": "path", "epochs": 3},
    },
    "methods": {
        **{name: {} for name in ("format", "soft", "hard", "told", "paired", "mixed")},
        "mixed50": {"mixture": {"source": "self", "share": 0.5, "prompts_per_step": 4}},
    },
    "reference": {"soft": LONG, "hard": LONG},
    "small": dict.fromkeys(("format", "soft", "hard", "told"), SMALL | {"learning_rate": 2.0e-3}),
}


@pytest.mark.parametrize("name", PROFILES)
def test_profiles_give_the_methods_that_they_should(root: Path, study: dict[str, Any], name: str) -> None:
    merged = params.merge(study, yaml_files.read(root / "profiles" / f"{name}.yaml"))
    found = params.parse(merged)
    assert set(found.methods) == set(PROFILES[name])
    for method in found.methods:
        plain = study["finetune"].get(method, study["finetune"]["defaults"])
        own = {key: value for key, value in merged["finetune"][method].items() if value != plain[key]}
        expected = {key: value for key, value in PROFILES[name][method].items() if value != plain[key]}
        assert own == expected, method


def test_methods_of_the_study_are_the_defaults_but_for_what_they_say(study: dict[str, Any]) -> None:
    methods = study["finetune"]
    own = {
        name: {key: value for key, value in method.items() if value != methods["defaults"][key]}
        for name, method in methods.items()
    }
    assert own == {
        "defaults": {},
        "soft": {},
        "hard": {"estimator": "samples"},
        "format": {"estimator": "samples", "completions": "other"},
        "told": {"estimator": "samples", "told": "moments"},
        "mixed": {"mixture": {"source": "self", "share": 0.25, "prompts_per_step": 4}},
        "paired": {"mixture": {"source": SEEN, "share": 0.25, "prompts_per_step": 4}},
    }
    # None shares a block with another: `dvc exp run -S` changes one method's own keys, and no other's.
    assert all(not isinstance(value, dict | list) for value in methods["defaults"].values())


def test_the_space_of_a_method_is_of_its_own_keys(root: Path) -> None:
    method = params.load(root / "params.yaml").finetune["soft"]
    changed_one = method.model_copy(update={"max_bins": 7, "num_decimals": 2, "discretisation": "thin"})
    assert changed_one.space.model_dump() == {"discretisation": "thin", "num_decimals": 2, "max_bins": 7}
    assert method.space.model_dump() == {"discretisation": "coarsen", "num_decimals": 5, "max_bins": 1001}


def test_a_profile_switches_a_mixture_off() -> None:
    base = {"finetune": {"mixed": {"mixture": {"share": 0.5}}}}
    assert params.merge(base, {"finetune": {"mixed": {"mixture": None}}}) == {"finetune": {"mixed": {"mixture": None}}}


def test_loaded_parameters_cannot_be_changed(root):
    loaded = params.load(root / "params.yaml")
    with pytest.raises(ValueError, match="frozen"):
        loaded.finetune["soft"].epochs = 2.0


def test_axis_points():
    axes = FamilyGrid.model_validate(
        {"train": {"x": {"lin": [0, 1, 3]}, "y": {"log": [1, 100, 3]}, "z": [3, 1]}, "selected": []}
    ).train
    assert axes is not None
    assert axes["x"].points() == [0, 0.5, 1]
    assert axes["y"].points() == pytest.approx([1, 10, 100])
    assert axes["z"].points() == [3, 1]
    assert len(list(specs.grid_points(axes))) == 18
    assert axes["z"].draw(np.random.default_rng(0), False) in (1, 2, 3)
    whole = FamilyGrid.model_validate({"train": {"n": {"log": [5, 40, 4]}}, "selected": []}).train
    assert whole is not None
    assert whole["n"].points() == [5, 10, 20, 40]


def test_whole_numbers_of_a_log_axis_are_drawn_log_uniformly():
    axes = FamilyGrid.model_validate({"train": {"n": {"log": [1, 1000, 4]}}, "selected": []}).train
    assert axes is not None
    rng = np.random.default_rng(0)
    drawn = np.array([axes["n"].draw(rng, integral=True) for _ in range(20_000)])
    assert drawn.min() == 1 and drawn.max() <= 1000 and (drawn == np.round(drawn)).all()
    # P(n <= k) = log(k + 1) / log(1001)
    for k in (1, 10, 100):
        p = np.log(k + 1) / np.log(1001)
        assert (drawn <= k).mean() == pytest.approx(p, abs=4 * np.sqrt(p * (1 - p) / len(drawn)))


def test_check_says_nothing_about_a_good_file(root, monkeypatch, capsys):
    monkeypatch.chdir(root)
    assert params.main(["check"]) == 0
    assert params.main(["check", "params.yaml"]) == 0
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"models": ["./tiny"]},
            f"models: must be {', '.join(TABLE)}, a hub id org/name or a folder, got ./tiny, where no folder is",
        ),
        (
            {
                "methods": ["format", "soft", "hard", "mixed"],
                "finetune": {"mixed": {"mixture": {"source": "mine.jsonl"}}},
            },
            "finetune.mixed.mixture.source: must be self, a split of a hub dataset as org/name:split or "
            "org/name:config:split or a file, got mine.jsonl, where no file is",
        ),
        (
            {"benchmarks": {"novelty": {"prompts": "org/name"}}},
            "benchmarks.novelty.prompts: must be bundled, a split of a hub dataset as org/",
        ),
        (
            {"benchmarks": {"novelty": {"reward_model": "/r"}}},
            "benchmarks.novelty.reward_model: must be null, a hub id org/name or a folder, got",
        ),
        (
            {"benchmarks": {"language": {"items": "."}}},
            "benchmarks.language.items: must be bundled or a file, got ., where no file is",
        ),
        (
            {"benchmarks": {"perplexity": {"source": "x"}}},
            "benchmarks.perplexity.source: must be bundled or a folder, got x, where no folder is",
        ),
        (
            {"benchmarks": {"capability": {"data": "./x"}}},
            "benchmarks.capability.data: must be null or a folder, got ./x, where no folder is",
        ),
        (
            {"benchmarks": {"capability": {"irt": "./x"}}},
            "benchmarks.capability.irt: must be null, published or a file, got ./x, where no file",
        ),
    ],
)
def test_what_a_parameter_names_must_be_there(study, tmp_path, monkeypatch, capsys, changes, message):
    monkeypatch.chdir(tmp_path)
    params.write(params.merge(study, changes), Path())
    assert params.main(["check"]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"params.yaml: {message}") and error.count("\n") == 1


def test_what_a_parameter_names_may_be_on_the_hub_or_here(study, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.jsonl").write_text("")
    Path("tiny").mkdir()
    changes = {
        "models": ["./tiny", "org/name"],
        "finetune": {"mixed": {"mixture": {"source": "mine.jsonl"}}},
        "benchmarks": {
            "novelty": {"prompts": "org/name:config:train", "classifier": "org/judge"},
            "perplexity": {"source": "./tiny"},
        },
    }
    changes["finetune"]["unused"] = params.merge(study["finetune"]["mixed"], {"mixture": {"source": "absent.jsonl"}})
    params.write(params.merge(study, changes), Path())
    params.check("params.yaml")


def test_merged_files_pass_the_check(root, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(root)
    assert params.main(["merge", "params.yaml", "profiles/demo.yaml"]) == 0
    merged = tmp_path / "merged.yaml"
    merged.write_text(capsys.readouterr().out)
    shutil.copy(params.GRIDS, tmp_path)
    assert params.main(["check", str(merged)]) == 0
    assert params.load(merged).benchmarks.structured.sampled.draws == 50
    assert list(yaml.safe_load(merged.read_text())) == list(yaml_files.read("params.yaml"))


def test_grids_are_not_merged_by_hand(root, monkeypatch, capsys):
    monkeypatch.chdir(root)
    assert params.main(["merge", "params.yaml", "profiles/test.yaml"]) == 1
    out, error = capsys.readouterr()
    command = "python -m calibnb.pipeline.profiles profiles/test.yaml FOLDER"
    assert error == f"profiles/test.yaml: families: must not be changed in a merged file; use {command}\n"
    assert not out


def test_grids_are_in_a_file_of_their_own(study, tmp_path):
    params.write(study, tmp_path)
    assert params.read(tmp_path / "params.yaml") == study
    with (tmp_path / "params.yaml").open("a") as file:
        file.write("families: {}\n")
    with pytest.raises(UserError, match=r"params.yaml: families: must be in grids.yaml beside it, got a key here$"):
        params.read(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_text("models: []\n")
    (tmp_path / "grids.yaml").unlink()
    with pytest.raises(UserError, match=r"grids.yaml: must be a readable file, got: No such file or directory$"):
        params.read(tmp_path / "params.yaml")


def test_a_bad_profile_is_named(root, tmp_path, capsys):
    bad = tmp_path / "bad.yaml"
    bad.write_text("finetune: {soft: {lr: 1}}")
    assert params.main(["merge", str(root / "params.yaml"), str(bad)]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"{root / 'params.yaml'} + {bad}: finetune.soft.lr: unknown key; allowed: ")


def test_usage(capsys):
    assert params.main(["chek"]) == 1
    assert capsys.readouterr().err.startswith("usage: ")


def test_the_command_line_gives_one_line_and_status_one(study, tmp_path, root):
    raw = changed(study, "families.gaussian.train.sigma", {"lin": [-1, 2, 3]})
    params.write(raw, tmp_path)
    command = [sys.executable, "-m", "calibnb.pipeline.params", "check", str(tmp_path / "params.yaml")]
    run = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert run.stdout == ""
    assert run.stderr == f"{tmp_path / 'params.yaml'}: families.gaussian.train.sigma: must be > 0, got -1\n"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"finetune": {"soft": {"estimator": "trie", "average": "path"}}},
            "finetune.soft.average: must be tokens where estimator is trie, which has no paths, got path",
        ),
        (
            {"benchmarks": {"capability": {"irt": "published", "limit": 20}}},
            "benchmarks.capability.limit: must be null where irt is given, which needs every answer, got 20",
        ),
        (
            {"families": {"lognormal": {"selected": [{"mu": 0, "sigma": 300}], "train": {"sigma": [300, 301]}}}},
            "families.lognormal",
        ),
    ],
)
def test_keys_that_do_not_go_together(changes: dict[str, object], message: str) -> None:
    with pytest.raises(UserError) as caught:
        params.parse(params.merge(params.read("params.yaml"), changes))
    assert str(caught.value).startswith(f"params.yaml: {message}") and "\n" not in str(caught.value)


def test_no_setting_to_validate_on() -> None:
    raw = params.read("params.yaml")
    raw["families"] = {"geometric": {"train": {"p": [0.5]}, "unseen": {"p": [0.2]}, "selected": []}}
    raw["benchmarks"]["structured"]["settings"] = {"in_range": "none", "unseen": "all", "held_out": "none"}
    with pytest.raises(UserError, match=r"^params.yaml: data.validation_share: must leave a setting to validate on"):
        params.parse(raw)
