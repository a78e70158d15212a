"""How fast a model's HTML file completes text in Chromium, beside what JavaScript can multiply there.

python tests/page_speed.py          # lstm of 256 features; needs playwright and chromium
"""

import json
import shutil
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from charrnn.api import from_torch
from charrnn.model import torch_module
from charrnn.model.architecture import Architecture
from charrnn.sharing import page_file

CHARACTERS = "\n !\"'(),-.0123456789:;?" + "".join(chr(c) for c in [*range(65, 91), *range(97, 123)])
# Seconds of the same products that a step has, in the same loops, with nothing between them.
LIMIT = """
([shapes, times]) => {
  const room = ([I, O]) => [new Float64Array(I).fill(0.5), new Float32Array(I * O).fill(0.1), new Float64Array(O)];
  const rooms = shapes.map(room);
  const began = performance.now();
  for (let n = 0; n < times; n++) for (const [x, matrix, y] of rooms) {
    const O = y.length;
    y.fill(0);
    for (let i = 0; i + 3 < x.length; i += 4) {
      const a = x[i], b = x[i + 1], c = x[i + 2], d = x[i + 3];
      for (let j = 0, k = i * O; j < O; j++, k++) {
        y[j] += a * matrix[k] + b * matrix[k + O] + c * matrix[k + 2 * O] + d * matrix[k + 3 * O];
      }
    }
  }
  return (performance.now() - began) / 1000 / times;
}
"""


def main(hidden: int = 256, chars: int = 4000) -> None:
    """Print characters a second, the limit, and the gap."""
    architecture = Architecture("lstm", 256 + len(CHARACTERS), hidden, 1, 128)
    weights = architecture.initial(seed=7)
    model = from_torch(torch_module.to_module(architecture, weights), CHARACTERS)
    script = page_file.page(model)
    ask = f"""
const began = performance.now();
let text = "";
const asked = {{ prompt: "", max_tokens: {chars}, temperature: 1, seed: 1 }};
for await (const piece of modules["server.js"].stream(asked)) text += piece;
globalThis.seconds = (performance.now() - began) / 1000;
"""
    # Without the policy: this page is another one than the file.
    timed = script.partition('<meta http-equiv="Content-Security-Policy"')
    html = timed[0] + timed[2].partition(">")[2].replace("</script>\n</body>", f"{ask}</script>\n</body>")
    shapes = [(hidden, 4 * hidden), (hidden, architecture.vocabulary)]
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        (Path(folder) / "page.html").write_text(html, encoding="utf-8")
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page()
        speeds, limits = [], []
        for _ in range(5):
            page.goto(f"file://{folder}/page.html")
            page.wait_for_function("globalThis.seconds !== undefined", timeout=120_000)
            speeds.append(chars / page.evaluate("globalThis.seconds"))
            limits.append(1 / page.evaluate(LIMIT, [shapes, 2000]))
        version = browser.version
        browser.close()
    best, limit = max(speeds), max(limits)
    found = {
        "hidden": hidden,
        "chars_per_s": round(best),
        "limit_chars_per_s": round(limit),
        "share": round(best / limit, 3),
    }
    print(json.dumps({**found, "chromium": version}))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
