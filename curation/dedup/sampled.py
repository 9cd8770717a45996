"""A search of 256-bit codes that finds pairs with a stated probability: tables keyed by a few random bits.

Two codes that differ in d of 256 bits agree in w bits drawn at random with probability p = C(256-d, w) / C(256, w);
of L tables at least one brings them together with probability 1 - (1 - p)^L, the recall at exactly d; nearer pairs are
found more often. (Bit sampling: Indyk and Motwani 1998.) Codes of 64 bits are joined exactly, for that is as cheap.

U, V: distinct codes; L: tables; w: bits of each key.
"""

from dataclasses import dataclass
from math import ceil, comb, log, log1p

import numpy as np

from curation.dedup.blocks import NS_PER_CANDIDATE, NS_PER_ROW_AND_TABLE, Table, all_pairs, cost_s, key_blocks
from curation.dedup.hamming import jobs_between, jobs_within, jobs_of_tables
from curation.dedup.join import Job, Values

BITS = 256
_WORDS = BITS // 64
_FEWEST_KEY_BITS, _MOST_KEY_BITS = 8, 40
