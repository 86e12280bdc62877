"""The command line: one function a command, heavy imports inside it."""


def main() -> None:
    raise SystemExit
