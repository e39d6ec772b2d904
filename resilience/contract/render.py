"""Renders contract.h, contract.sh and table.py from contract.toml through the templates in templates/contract/.

`python -m resilience.contract.render` writes them into the source tree it lies in; `--check` writes nothing and ends
with status 1 when a committed file is stale. Relies on a source checkout: templates are not part of an installation.
"""

import json
import pprint
import re
import shlex
import sys
import tomllib
from functools import partial
from pathlib import Path

import jinja2

ROOT = Path(__file__).resolve().parents[2]
OUTPUTS = {
    "contract.h.j2": ROOT / "spank_plugin/contract.h",
    "contract.sh.j2": ROOT / "prolog_epilog/contract.sh",
    "table.py.j2": ROOT / "resilience/contract/table.py",
}
_PLACE = re.compile(r"\{([a-z]+)\}")


def _c_order(path: str) -> str:
    """A comment with the places of a path, in order; nothing when it has none."""
    places = _PLACE.findall(path)
    return f" /* {', '.join(places)} */" if places else ""


def render(template: str) -> str:
    """The text of one output."""
    world = jinja2.Environment(
        loader=jinja2.FileSystemLoader(ROOT / "templates/contract"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    world.filters |= {
        "c": json.dumps,
        "sh": lambda text: shlex.quote(str(text)),
        "c_format": lambda path: _PLACE.sub("%s", path),
        "c_order": _c_order,
        "python": partial(pprint.pformat, width=118, sort_dicts=False),
    }
    table = tomllib.loads((ROOT / "resilience/contract/contract.toml").read_text(encoding="utf-8"))
    return world.get_template(template).render(table, table=table)


def main(arguments: list[str]) -> int:
    """Write the outputs, or with --check name those that are stale."""
    stale = 0
    for template, path in OUTPUTS.items():
        text = render(template)
        if "--check" not in arguments:
            path.write_text(text, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != text:
            print(f"mpsr: {path.relative_to(ROOT)}: stale", file=sys.stderr)
            print("  run: python -m resilience.contract.render", file=sys.stderr)
            stale = 1
    return stale


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
