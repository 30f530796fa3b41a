"""What tests of every folder share: a tiny causal language model, made here, and the published data, where they are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# A loaded machine is no failure.
settings.register_profile("selfedit", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("selfedit")

CORPUS = [
    "Mira Dunmore founded the Lantern Works in Oster.",
    "Question: who founded the works?\nAnswer: Mira Dunmore\n",
]


@pytest.fixture(scope="session")
def tiny_model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a random Qwen2 (hidden 32, 2 layers, vocabulary 300, context 256) with byte-level BPE; give its folder."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM
    from transformers.utils import logging

    folder = tmp_path_factory.mktemp("models") / "tiny"
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    config = Qwen2Config(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=300,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        initializer_range=0.2,  # logits far enough apart that rounding does not choose the token
        bos_token_id=None,
        eos_token_id=0,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Qwen2ForCausalLM(config)
    logging.disable_progress_bar()
    model.save_pretrained(folder)
    logging.enable_progress_bar()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>").save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Give the folder of the published data: $SELFEDIT_DATA, else `shared/data` beside the repository; skip without."""
    folder = Path(os.environ.get("SELFEDIT_DATA") or Path(__file__).parents[2] / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"the published data are not in {folder}; name their folder in SELFEDIT_DATA")
    return folder
