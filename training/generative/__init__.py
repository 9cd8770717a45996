"""Vision-language models that answer: put together from parts, trained in stages on captions and conversations."""
