"""`python -m inkling`: the command line, where its script is not on the path."""

from inkling.cli import main

if __name__ == "__main__":
    main()
