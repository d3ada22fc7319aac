"""`python -m edgepack` and the `edgepack` command."""

from edgepack.cli import main

if __name__ == "__main__":
    main()
