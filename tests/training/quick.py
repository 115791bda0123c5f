"""Settings of training runs that take a second."""

from langgraft.training.loop import Compute, Settings

QUICK = Settings(
    steps=6,
    length=32,
    batch_rows=3,
    learning_rate=1e-2,
    new_rows_learning_rate=3e-2,
    old_rows_learning_rate=2e-2,
    warmup=0.2,
)
ONE_THREAD = Compute(device="cpu", dtype="float32", threads=1, micro_rows=2, checkpoint_every=2)
