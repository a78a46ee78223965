"""``python -m stream.cli``: the console script without an installation's ``bin`` folder."""

from stream.cli import main

if __name__ == "__main__":
    main()
