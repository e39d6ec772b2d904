"""The argument parser of the commands: argparse with our wording and our exit status."""

import argparse
import sys
from typing import NoReturn

from resilience.contract import exit_code


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        print(f"mpsr: {self.prog.removeprefix('mpsr ')}: {message}\n  try: {self.prog} --help", file=sys.stderr)
        raise SystemExit(exit_code("usage"))
