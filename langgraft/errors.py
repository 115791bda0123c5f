"""Every exception langgraft raises on purpose.

    LanggraftError             exit 2; a sentence: what is wrong, where, what to do
    ├── InputError             the user's input cannot be used
    │   ├── RecipeError        a field of a recipe or an option of a method
    │   ├── CorpusError        a file of text
    │   │   └── DamagedError   a file of which only a part, or nothing, can be read; others can
    │   ├── TokenizerError     a tokenizer, or a tokenizer that does not fit its model
    │   └── ModelError         a model folder, hub id or GGUF file
    ├── BusyError              another process holds the run folder
    ├── DiskFullError          no space left on the device
    ├── TrainingError          the run cannot go on (loss is not a number, no usable checkpoint)
    ├── GateError              exit 1; the work is done, but a proof failed
    └── Interrupted            exit 130; stopped by the user, the same command resumes

The command line prints the sentence without a traceback; anything else is a defect of langgraft and keeps
its traceback.
"""


class LanggraftError(Exception):
    """A failure the user can understand and act on."""

    exit_code = 2


class InputError(LanggraftError):
    """The user's input cannot be used."""


class RecipeError(InputError):
    """A field of a recipe, or an option of a method, is wrong."""


class CorpusError(InputError):
    """A file of text cannot be used."""


class DamagedError(CorpusError):
    """A file is damaged, cut short or not what its reader reads; what came before the damage is good."""


class TokenizerError(InputError):
    """A tokenizer cannot be used, or does not fit its model."""


class ModelError(InputError):
    """A model folder, hub id or GGUF file cannot be used."""


class BusyError(LanggraftError):
    """Another process holds the run folder."""


class DiskFullError(LanggraftError):
    """No space is left on the device."""


class WorkerError(LanggraftError):
    """A worker process ended before its work; what is done is kept, and the same command goes on from there."""


class TrainingError(LanggraftError):
    """Training cannot go on."""


class GateError(LanggraftError):
    """A proof failed; what was made is kept so that it can be looked at."""

    exit_code = 1


class Interrupted(LanggraftError):  # noqa: N818 - it is no error, and reads as what happened
    """Stopped by the user or the cluster; the same command resumes."""

    exit_code = 130
