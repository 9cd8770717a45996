"""Every column that a row may carry: name, Arrow type, meaning with unit, range and shape."""

from dataclasses import dataclass, replace

import pyarrow as pa


@dataclass(frozen=True)
class Column:
    """A typed column. `type` is the type in storage; embeddings are fixed-size binary float16 (`embedding`)."""

    name: str
    type: pa.DataType
    meaning: str

    @property
    def width(self) -> int | None:
        """Numbers per vector of an embedding, else None."""
        return self.type.byte_width // 2 if pa.types.is_fixed_size_binary(self.type) else None

    @property
    def is_embedding(self) -> bool:
        """Whether the column holds vectors of float16; `embedding` makes such columns."""
        return self.width is not None

    @property
    def field(self) -> pa.Field:
        """The Arrow field, with the width and dtype of an embedding in its metadata."""
        metadata = {"width": str(self.width), "dtype": "float16"} if self.width else None
        return pa.field(self.name, self.type, metadata=metadata)

    def named(self, name: str) -> "Column":
        """The same column under another name."""
        return replace(self, name=name)


def embedding(name: str, width: int, meaning: str) -> Column:
    """A column of `width` float16 numbers per row, as fixed-size binary: 18 times quicker to read than a list."""
    return Column(name, pa.binary(2 * width), f"{meaning}; {width} float16 numbers")


def any_embedding(name: str) -> Column:
    """What an operator reads when an embedding of any width will do; the plan knows the width."""
    return Column(name, pa.binary(), "an embedding of any width")


# Identity and source. Every row has them.
KEY = Column("key", pa.string(), "the row's name: 32 hex digits of SHA-256(url + newline + caption)")
URL = Column("url", pa.string(), "address of the picture, as the source gives it")
CAPTION = Column("caption", pa.string(), "text of the pair, as the source gives it")

# The picture. It is no sidecar column: it stands for the stored bytes, and reading it means reading their pixels.
IMAGE = Column("image", pa.large_binary(), "the stored picture; operators see its pixels (schemas/pixels.py)")

# download
STATUS = Column("status", pa.string(), "outcome of the download: ok, or the class of failure")
ERROR = Column("error", pa.string(), "what went wrong with the download, in words")
HTTP_STATUS = Column("http_status", pa.int16(), "HTTP status of the last answer")
SHA256 = Column("sha256", pa.string(), "SHA-256 of the fetched bytes, hex")
STORED_SHA256 = Column("stored_sha256", pa.string(), "SHA-256 of the stored picture, hex")
ORIGINAL_WIDTH_PX = Column("original_width_px", pa.int32(), "width of the fetched picture, orientation applied")
ORIGINAL_HEIGHT_PX = Column("original_height_px", pa.int32(), "height of the fetched picture, orientation applied")

# inspect_image
WIDTH_PX = Column("width_px", pa.int32(), "width of the stored picture in pixels")
HEIGHT_PX = Column("height_px", pa.int32(), "height of the stored picture in pixels")
FORMAT = Column("format", pa.string(), "format of the stored picture: jpg, png or webp")
SIZE_BYTES = Column("size_bytes", pa.int64(), "length of the stored picture in bytes")

# image_hash
PHASH = Column("phash", pa.uint64(), "64-bit perceptual hash, as imagehash.phash defines it, first bit highest")
DHASH = Column("dhash", pa.uint64(), "64-bit difference hash, as imagehash.dhash defines it, first bit highest")
PDQ = Column("pdq", pa.binary(), "256-bit perceptual hash as 32 bytes, in the order in which ThreatExchange prints it")
PDQ_QUALITY = Column("pdq_quality", pa.int8(), "how much of the picture its PDQ hash tells, 0 (flat) to 100")

# caption_stats
CAPTION_CHARS = Column("caption_chars", pa.int32(), "characters of the caption (Unicode code points)")
CAPTION_WORDS = Column("caption_words", pa.int32(), "words of the caption, split at white space")

# language
LANGUAGE = Column("language", pa.string(), "language of the caption, ISO 639-1 where there is one")
LANGUAGE_SCORE = Column("language_score", pa.float32(), "probability of that language, 0 to 1")

# clip_embed, clip_score
CLIP_IMAGE = "clip_image"  # embeddings carry the model's width: `embedding(CLIP_IMAGE, 512, …)`
CLIP_TEXT = "clip_text"
CLIP_SCORE = Column("clip_score", pa.float32(), "cosine of clip_image and clip_text, -1 to 1")

# aesthetic_score
AESTHETIC_SCORE = Column("aesthetic_score", pa.float32(), "how people like the picture's look, about 1 to 10")

# cluster
CLUSTER = Column("cluster", pa.int32(), "number of the row's cell of a k-means, from 0")
CLUSTER_COSINE = Column("cluster_cosine", pa.float32(), "cosine of the embedding to the centre of its cell, -1 to 1")

# What becomes of a row; `samples` carries them.
FATE = Column("fate", pa.string(), "curated, dropped or failed")
FATE_STEP = Column("fate_step", pa.string(), "the step that decided, `steps[3] dedup` or its id; empty for curated")
FATE_REASON = Column("fate_reason", pa.string(), "why, in words; empty for curated")
DUPLICATE_OF = Column("duplicate_of", pa.string(), "key of the row that was kept instead")

# match_terms
MATCHED_TERMS = Column("matched_terms", pa.list_(pa.string()), "the terms of a list that the caption holds, sorted")

# caption, judge: answers of a vision-language model
VLM_CAPTION = Column("vlm_caption", pa.string(), "what a vision-language model says of the picture")
CAPTION_PROMPT_TOKENS = Column("caption_prompt_tokens", pa.int32(), "tokens of prompt and picture behind vlm_caption")
CAPTION_COMPLETION_TOKENS = Column("caption_completion_tokens", pa.int32(), "tokens that vlm_caption took to write")
JUDGE_SCORE = Column("judge_score", pa.float64(), "score that a vision-language model gives, on the step's scale")
JUDGE_REASON = Column("judge_reason", pa.string(), "why it gives that score, in its words; NULL where it does not say")
JUDGE_PROMPT_TOKENS = Column("judge_prompt_tokens", pa.int32(), "tokens of prompt and picture behind judge_score")
JUDGE_COMPLETION_TOKENS = Column("judge_completion_tokens", pa.int32(), "tokens that the judgement took to write")
