"""The command line as ``python -m recsim_llm``."""

from recsim_llm.cli import main

if __name__ == "__main__":
    main()
