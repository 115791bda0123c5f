"""`python -m langgraft`: the command line where only the interpreter is known, as under torchrun."""

from langgraft.cli import main

if __name__ == "__main__":
    main()
