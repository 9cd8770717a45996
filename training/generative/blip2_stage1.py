"""BLIP-2's first stage: the Q-Former learns to contrast, to match and to caption (arXiv 2301.12597, section 3.2).

On the parts of transformers' Blip2ForImageTextRetrieval. Three kinds of attention share one set of weights: captions
alone for the contrast; queries and captions free to see each other for matching; for captioning, queries that see no
caption, and captions that see the queries and what they have said so far.

Shapes: b pairs of this rank, B of all, P patches of a picture, Q queries, T tokens of a caption, D numbers of a hidden
state, E of the space that both sides are projected into.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.generative.collation import IGNORED
from training.generative.loss import answer_loss
from training.ranks import ALONE, Ranks, gathered

LOSSES = ("contrast", "matching", "captioning")
_SMOOTHING = 0.1  # of the contrast's targets, as the paper's own code has it


class FirstStage(nn.Module):
    """Pictures and captions → the three losses; one module, so that DDP and FSDP2 take hold of all of it."""

    def __init__(self, model: Any, speaks_id: int, ranks: Ranks = ALONE, *, bf16: bool = False) -> None:
        """`speaks_id` is the token that a caption begins with where it is to be told, in place of its first one."""
        super().__init__()
        self.model = model
        self._speaks_id, self._ranks, self._bf16 = speaks_id, ranks, bf16

    def forward(self, pixels_bCHW: Tensor, tokens_bT: Tensor, mask_bT: Tensor, label_tokens: int) -> Tensor:
        """This rank's shares of contrast, matching and captioning [3], whose means over the ranks are the losses."""
        with torch.autocast(pixels_bCHW.device.type, torch.bfloat16, enabled=self._bf16):
            image_bPD = self.model.vision_model(pixel_values=pixels_bCHW).last_hidden_state
            queries_bQD, text_bTD = told(self.model, image_bPD, tokens_bT, mask_bT, self._speaks_id)
            text_bE = caption_vectors(self.model, tokens_bT, mask_bT)
            query_bQE = _unit(self.model.vision_projection(queries_bQD))
            contrast, logits_bb = contrasted(query_bQE, text_bE, self.model.temperature, self._ranks)
            other_pictures_b, other_captions_b = hard_negatives(logits_bb, tokens_bT)
            matching = self._matching(image_bPD, tokens_bT, mask_bT, other_pictures_b, other_captions_b)
            captioning = self._captioning(text_bTD, tokens_bT, mask_bT, label_tokens)
        return torch.stack([contrast, matching, captioning])

    def _matching(
        self, image_bPD: Tensor, tokens_bT: Tensor, mask_bT: Tensor, pictures_b: Tensor, captions_b: Tensor
    ) -> Tensor:
        """Cross-entropy of: the pairs, captions with a picture like theirs, pictures with a caption like theirs."""
        images = torch.cat([image_bPD, image_bPD[pictures_b], image_bPD])
        tokens = torch.cat([tokens_bT, tokens_bT, tokens_bT[captions_b]])
        mask = torch.cat([mask_bT, mask_bT, mask_bT[captions_b]])
        logits_N2 = match_logits(self.model, images, tokens, mask)
        pairs = len(tokens_bT)
        match_N = torch.arange(3 * pairs, device=tokens_bT.device) < pairs
        return functional.cross_entropy(logits_N2.float(), match_N.long())

    def _captioning(self, text_bTD: Tensor, tokens_bT: Tensor, mask_bT: Tensor, label_tokens: int) -> Tensor:
        """The next token's cross-entropy; transformers' class has no head for it: the tokens' own vectors serve."""
        labels_bT = tokens_bT.masked_fill(mask_bT == 0, IGNORED)
        words_VD = self.model.embeddings.word_embeddings.weight
        head = nn.Linear(words_VD.shape[1], words_VD.shape[0], bias=False, device="meta")
        head.weight = words_VD
        return answer_loss(text_bTD, labels_bT, head, label_tokens, ranks=self._ranks)


def told(model: Any, image_BPD: Tensor, tokens_BT: Tensor, mask_BT: Tensor, speaks_id: int) -> tuple[Tensor, Tensor]:
    """queries_BQD, which know the picture alone, and text_BTD, of which each token knows queries and those before it.

    One pass serves captioning and the contrast's side of pictures.
    """
    query_BQD = model.query_tokens.expand(len(image_BPD), -1, -1)
    spoken_BT = torch.cat([torch.full_like(tokens_BT[:, :1], speaks_id), tokens_BT[:, 1:]], 1)
    hidden = model.qformer(
        query_embeds=model.embeddings(input_ids=spoken_BT, query_embeds=query_BQD),
        query_length=query_BQD.shape[1],
        attention_mask=telling_mask(query_BQD.shape[1], mask_BT),
        encoder_hidden_states=image_BPD,
    ).last_hidden_state
    return hidden[:, : query_BQD.shape[1]], hidden[:, query_BQD.shape[1] :]


def telling_mask(queries: int, mask_BT: Tensor) -> Tensor:
    """Who attends to whom while captions are told, added to attention's logits: 0 or -inf, [B, 1, Q + T, Q + T]."""
    rows, tokens = mask_BT.shape
    sees = torch.ones(queries + tokens, queries + tokens, dtype=torch.bool, device=mask_BT.device).tril()
    sees[:queries, :queries] = True
    sees = sees.repeat(rows, 1, 1, 1)
    sees[..., queries:] &= mask_BT[:, None, None].bool()
    return torch.zeros(sees.shape, device=sees.device).masked_fill(~sees, -torch.inf)


def caption_vectors(model: Any, tokens_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """text_BE of unit length: what a caption's first token knows of all of it, and of no picture."""
    hidden_BTD = model.qformer(
        query_embeds=model.embeddings(input_ids=tokens_BT), query_length=0, attention_mask=mask_BT
    ).last_hidden_state
    return _unit(model.text_projection(hidden_BTD[:, 0]))


def match_logits(model: Any, image_NPD: Tensor, tokens_NT: Tensor, mask_NT: Tensor) -> Tensor:
    """[apart, belong together] of pictures and captions, N2: the mean of what the queries say, who see both."""
    query_NQD = model.query_tokens.expand(len(image_NPD), -1, -1)
    hidden = model.qformer(
        query_embeds=model.embeddings(input_ids=tokens_NT, query_embeds=query_NQD),
        query_length=query_NQD.shape[1],
        attention_mask=torch.cat([mask_NT.new_ones(query_NQD.shape[:2]), mask_NT], 1),
        encoder_hidden_states=image_NPD,
    ).last_hidden_state
    logits_N2: Tensor = model.itm_head(hidden[:, : query_NQD.shape[1]]).mean(1)
    return logits_N2


def contrasted(
    query_bQE: Tensor, text_bE: Tensor, temperature: Tensor | float, ranks: Ranks = ALONE
) -> tuple[Tensor, Tensor]:
    """InfoNCE among the pairs of all ranks, where a picture is as like a caption as its query that is most like it.

    Returns this rank's share, whose mean over the ranks is the loss, and the logits of its own pictures and captions,
    bb. In float32, outside autocast.
    """
    with torch.autocast(text_bE.device.type, enabled=False):
        query_bQE, text_bE = query_bQE.float(), text_bE.float()
        query_BQE, text_BE = gathered(query_bQE, ranks), gathered(text_bE, ranks)
        pictures_bB = torch.einsum("bqe,ke->bkq", query_bQE, text_BE).max(2).values / temperature
        captions_bB = torch.einsum("be,kqe->bkq", text_bE, query_BQE).max(2).values / temperature
        first = ranks.rank * len(text_bE)
        right_b = torch.arange(first, first + len(text_bE), device=text_bE.device)
        sides = [
            functional.cross_entropy(one, right_b, label_smoothing=_SMOOTHING) for one in (pictures_bB, captions_bB)
        ]
        return (sides[0] + sides[1]) / 2, pictures_bB[:, first : first + len(text_bE)]


@torch.no_grad()
def hard_negatives(logits_bb: Tensor, tokens_bT: Tensor) -> tuple[Tensor, Tensor]:
    """For each caption another's picture, and for each picture another's caption, drawn by how alike they are.

    Never its own, and none with the same caption, as far as there are others. They are this rank's.
    """
    same_bb = (tokens_bT[:, None] == tokens_bT[None]).all(2)
    return _drawn(logits_bb.T, same_bb), _drawn(logits_bb, same_bb)


def _drawn(logits_bb: Tensor, same_bb: Tensor) -> Tensor:
    """By the softmax over the others alone: with their own in it, those of a good model would be drawn evenly."""
    own_bb = torch.eye(len(same_bb), dtype=torch.bool, device=same_bb.device)
    left_out_bb = torch.where(same_bb.all(1, keepdim=True), own_bb, same_bb)
    return torch.multinomial(logits_bb.float().masked_fill(left_out_bb, -torch.inf).softmax(1), 1)[:, 0]


def _unit(vectors: Tensor) -> Tensor:
    return functional.normalize(vectors.float(), dim=-1)
