"""Debian's Chromium, headless: what a page looks like to it, and what it complains about."""

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium")
_ARGUMENTS = (
    "--headless",
    "--no-sandbox",  # the tests run as root
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--enable-logging=stderr",
    "--hide-scrollbars",
)
_POLICY = """<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">"""
_LOOK = """
<script>
addEventListener("load", () => {
  const all = selector => [...document.querySelectorAll(selector)];
  const name = node => node.tagName + ": " + node.textContent.trim().slice(0, 60);
  const outside = all("svg text, svg rect, svg circle").filter(node => {
    const box = node.getBBox(), view = node.ownerSVGElement.viewBox.baseVal;
    return box.x < -1 || box.y < -1 || box.x + box.width > view.width + 1 || box.y + box.height > view.height + 1;
  });
  const seen = {
    wide: document.scrollingElement.scrollWidth - innerWidth,
    outside: outside.map(name),
    cut: all("td, th, li, p, h1, h2, h3").filter(node => node.scrollWidth > node.clientWidth + 1).map(name),
    dead: all("a").filter(node => !document.getElementById(node.hash.slice(1))).map(name),
    ground: getComputedStyle(document.body).backgroundColor,
    ink: getComputedStyle(document.body).color,
    drawn: all("svg").filter(node => node.getBoundingClientRect().width > 100).length,
  };
  const note = document.createElement("script");
  note.type = "text/plain"; note.id = "seen"; note.textContent = JSON.stringify(seen);
  document.body.append(note);
});
</script>
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    seen: dict[str, Any]
    complaints: tuple[str, ...]
    """Lines of the browser's console."""


def _chromium(profile: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    assert CHROMIUM
    command = [CHROMIUM, *_ARGUMENTS, f"--user-data-dir={profile}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)


def look(page: Path, *, width: int, dark: bool = False) -> Look:
    """The page as it is, for its complaints; then a copy of it that measures itself."""
    profile = page.parent / "profile"
    theme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
    size = f"--window-size={width},1000"
    plain = _chromium(profile, theme, size, "--dump-dom", page.as_uri())
    complaints = tuple(line for line in plain.stderr.splitlines() if "CONSOLE" in line)
    text = page.read_text(encoding="utf-8")
    assert _POLICY in text
    copy = page.with_suffix(".measured.html")
    copy.write_text(text.replace(_POLICY, "").replace("</body>", f"{_LOOK}</body>"), encoding="utf-8")
    dump = _chromium(profile, theme, size, "--dump-dom", copy.as_uri()).stdout
    _, begins, rest = dump.partition('id="seen">')
    assert begins, dump[-2000:]
    return Look(seen=json.loads(rest.partition("</script>")[0]), complaints=complaints)


def printed(page: Path) -> bytes:
    """The page as PDF."""
    file = page.with_suffix(".pdf")
    _chromium(page.parent / "profile", f"--print-to-pdf={file}", "--no-pdf-header-footer", page.as_uri())
    return file.read_bytes()
