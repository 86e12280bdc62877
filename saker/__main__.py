"""`python -m saker`."""

from saker.cli import main

main()
