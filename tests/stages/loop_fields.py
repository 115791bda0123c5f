"""Fields of sections that train which are the loop's settings of the same name, with values that are no defaults."""

FIELDS: list[tuple[str, object]] = [
    ("learning_rate", 7e-4),
    ("new_rows_learning_rate", 7e-3),
    ("old_rows_learning_rate", 7e-5),
    ("weight_decay", 0.7),
    ("gradient_clip", 0.7),
    ("schedule", "cosine"),
    ("warmup", 0.7),
    ("decay", 0.7),
    ("replay_ratio", 0.7),
    ("seed", 7),
    ("optimizer", "muon"),
]
