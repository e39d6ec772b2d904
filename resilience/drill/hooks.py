"""A step of the guard's test: what the guard module's hooks have seen until now, as a line of JSON.

Exit status `failed` with a line of why when there is no module here, or it hooks nothing: then no fault is made.
"""

import json
import sys
from dataclasses import asdict

from resilience.adapters.gpu import guard
from resilience.contract import exit_code
from resilience.model.guard import Level


def main() -> int:
    level, found = guard.level(), guard.found()
    if level is Level.ABSENT or not found.cancels:
        what = "is not loaded" if level is Level.ABSENT else "does not say what it hooks"
        print(f"drill: the guard module {what}, so no fault is made")
        return exit_code("failed")
    print(json.dumps({"level": level.value, **asdict(found)}))
    return exit_code("ok")


if __name__ == "__main__":
    sys.exit(main())
