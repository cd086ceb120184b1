"""``python -m penstock``: the command line, for where its script is not installed."""

from penstock.cli.main import main

if __name__ == "__main__":
    main()
