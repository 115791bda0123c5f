"""What an amount of text is good for, said before it is spent."""

LITTLE, SOME = 100_000, 10_000_000  # tokens


def size_advice(tokens: int) -> str | None:
    """One line on a corpus that is too small for what people hope, or None. `tokens` are those of its text, once.

    Fewer than 100,000 tokens cannot teach a language, whatever the settings; below some millions a model learns to
    write it, but hardly anything new in it.
    """
    if tokens < LITTLE:
        return (
            f"the text holds {tokens:,} tokens; fewer than {LITTLE:,} teach a model the look of a language, not the "
            'language. Gather more first; until then add no tokens (tokenizer.method = "none") and train little '
            '(pretrain.mode = "lora", few epochs), or put examples of the text into the prompt instead'
        )
    if tokens < SOME:
        return (
            f"the text holds {tokens:,} tokens: a proof of concept. The model learns to write the language; what it "
            f"knows in it stays what it knew. Aim for {SOME:,} and more, and repeat text at most four times"
        )
    return None
