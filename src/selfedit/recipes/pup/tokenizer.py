"""Make pup's tokenizer: a byte-level BPE with few merges.

Few, because copying from the context is the first thing that pup needs and the last that it learns: with a word for a
token it did not learn it from nine million tokens, with about 250 subwords it did at once. Bytes underneath, so that
any text can be read. The chat template adds nothing to a message: pup was trained on the plain prompts.
"""

from __future__ import annotations

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from selfedit.recipes.pup import corpus
from selfedit.tasks import world

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% elif message['role'] == 'system' %}\n\n{% endif %}"
    "{% endfor %}"
)


def train_tokenizer(vocabulary: int, context: int, seed: int) -> PreTrainedTokenizerFast:
    """Learn `vocabulary` tokens (256 bytes and the special ones among them) from world text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[corpus.END, "<|pad|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    rng = world.seeded("tokenizer", seed)
    makers = (corpus.reading, corpus.writing, corpus.conversing)
    documents = (rng.choice(makers)(rng, corpus.MIXTURES["a"]) for _ in range(4000))
    texts = (
        "".join(text for text, weight in d if weight != corpus.PROMPT).replace(corpus.END, "\n") for d in documents
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=corpus.END,
        pad_token="<|pad|>",
        model_max_length=context,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
    )
