"""`[compute]` of a recipe: how and where, never what."""

from typing import Literal

from pydantic import Field

from langgraft.recipe_section import Section


class SlurmJob(Section):
    """What a job asks Slurm for; the cluster decides what is left out."""

    partition: str = ""
    """Partition (queue)."""
    account: str = ""
    """Account that is charged."""
    time: str = Field(default="", pattern=r"^(|[0-9]+(-[0-9]+)?(:[0-9]+){0,2})$")
    """Time limit, such as `"12:00:00"` or `"2-00:00:00"` (days first). At its end training saves and queues again."""
    gpus_per_node: int = Field(default=0, ge=0)
    """GPUs of each node. Training gets all of them, surgery and evaluate one, other stages none."""
    cpus_per_task: int = Field(default=0, ge=0)
    """CPU cores of each node's task; 0 leaves it to the cluster."""
    memory: str = ""
    """Memory of each node, such as `64G`."""
    extra: list[str] = Field(default_factory=list)
    """Further options of sbatch, such as `--constraint=a100` or `--exclusive`."""


class Slurm(SlurmJob):
    """What the jobs of `langgraft launch --on slurm` ask for."""

    corpus_parts: int = Field(default=1, ge=1)
    """Jobs that clean text side by side; one more then joins their shards."""
    setup: list[str] = Field(default_factory=list)
    """Lines of shell before the command, such as `module load cuda`."""
    stages: dict[str, SlurmJob] = Field(default_factory=dict)
    """Other wishes for some stages, as `[compute.slurm.stages.corpus]` tables; what one of them sets replaces what
    stands in `[compute.slurm]`."""


class ComputeSection(Section):
    """How and where; nothing here changes what is made, apart from rounding."""

    device: str = "auto"
    """auto, cpu, cuda or mps."""
    dtype: str = "auto"
    """auto, float32 or bfloat16: the format matrix products run in."""
    threads: int = Field(default=0, ge=0)
    """CPU threads; 0 takes all cores."""
    workers: int = Field(default=0, ge=0)
    """Processes that clean text; 0 takes all cores."""
    micro_batch_rows: int = Field(default=4, ge=1)
    """Rows per forward pass; a step accumulates as many as it needs."""
    attention: Literal["auto", "eager", "sdpa", "blocks", "flex", "flash"] = "auto"
    """How attention is computed: `auto` is `blocks` on a CPU where the model has sdpa, and on CUDA `flash` where
    flash-attn is installed, else `flex`; any of these is compared with sdpa on packed documents first."""
    compile: Literal["auto", True, False] = "auto"
    """Compile the transformer's layers (torch.compile); on a CPU this needs a C++ compiler. `auto` does it for
    trainings of one process on a CPU that has one, from about 45 minutes on."""
    activation_checkpointing: bool = False
    """Keep one state for each layer and make the others again in the backward pass: less memory, a third more time."""
    report_to: list[Literal["tensorboard", "trackio", "wandb"]] = Field(default_factory=list)
    """Trackers that get the figures of every step, beside `metrics.jsonl`; each is a package of its own."""
    checkpoint_every: int = Field(default=50, ge=1)
    """Optimizer steps between checkpoints."""
    keep_checkpoints: int = Field(default=2, ge=1)
    """How many checkpoints to keep."""
    async_checkpoints: bool = False
    """Write checkpoints in a thread while training goes on; takes memory for a copy of what is written."""
    nodes: int = Field(default=1, ge=1)
    """Machines that train together, started by `langgraft launch`."""
    processes_per_node: int = Field(default=1, ge=1)
    """Training processes on each of them: one for each GPU."""
    tensor_parallel: int = Field(default=1, ge=1)
    """Processes that share every matrix of the model, and work on the same rows. Keep them on one machine."""
    fsdp: int = Field(default=0, ge=0)
    """Processes among which weights, gradients and optimizer are cut (FSDP2, ZeRO-3); 0 takes all that are left. 1 with
    `data_parallel_replicas` is plain data parallel."""
    data_parallel_replicas: int = Field(default=1, ge=1)
    """Copies of what `fsdp` cuts (hybrid sharding): one for each machine keeps weights off the network between them."""
    slurm: Slurm = Field(default_factory=Slurm)
    """What `langgraft launch --on slurm` asks for."""
