"""Make pup-grid's tokenizer: one token a cell, one a line of the request for a choice, one a decision of the choice.

Nothing is learnt. There are 256 bytes, so that any text can be read, and a list of words over them, of which the
longest at a place is taken. The words are cut out of what `tasks.arc` words itself: the request for a choice, whose
970 characters cost ten tokens, and the choice, where every flag, rate and number of epochs is a single token and so a
single act to be reinforced. A number off the menu is spelt out.
"""

from __future__ import annotations

import json
import re

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from selfedit.recipes.pup.corpus import END
from selfedit.recipes.pup.tokenizer import CHAT_TEMPLATE
from selfedit.recipes.pup_grid.corpus import EPOCHS, RATES
from selfedit.tasks.arc import FORMAT, STRATEGIES, write_choice

PAD = "<|pad|>"
_GRIDS = ("[[", "]\n [", "]]", "Input:\n", "\nOutput:\n", "\n\n", *(f" {colour}" for colour in range(10)))


def _request() -> list[str]:
    """The lines of the request for a choice, and what stands before and after the task."""
    lines = FORMAT.instruction.split("\n")
    return [f"{line}\n" for line in lines[:-1]] + [lines[-1], f"\n\n{FORMAT.source}:\n", f"\n\n{FORMAT.heading}:\n"]


def _choice() -> list[str]:
    """What a choice is made of: what stands between its values, and the values."""
    between = re.split(r'(?<=:) (?:false|0|"")', write_choice((), "", 0, 0))
    numbers = [f" {json.dumps(value)}" for value in (*RATES, *EPOCHS)]
    return [*between, " true", " false", *(f' "{name}"' for name in STRATEGIES), *numbers]


WORDS = tuple(dict.fromkeys((*_GRIDS, *_request(), *_choice())))
VOCABULARY = 2 + 256 + len(WORDS)


def make_tokenizer(context: int) -> PreTrainedTokenizerFast:
    """Make the tokenizer: the two special tokens, the bytes, the words."""
    bytes_ = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate((END, PAD, *bytes_))}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([END, PAD])
    tokenizer.add_tokens([AddedToken(word, normalized=False) for word in WORDS])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=PAD,
        model_max_length=context,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
    )
