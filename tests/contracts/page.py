"""A page, run from top to bottom: `python page.py PLAN` in an empty folder. It imports nothing of the tests.

PLAN is JSON: {"page": its path, "strict": whether a warning is an error, "snippets": [{"line", "language", "label",
"code"}, …]}. Python shares one namespace, as if one had typed the page into an interpreter; a label is the name of the
file that it is saved as instead. Shell runs in bash, and its first failure ends the page. A "tree" has to be there.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import types
import warnings
from pathlib import Path


def run(plan):
    if plan["strict"]:
        warnings.simplefilter("error")
    main = sys.modules["__main__"] = types.ModuleType("__main__")  # where what is pickled is looked for
    for snippet in plan["snippets"]:
        where = f"{plan['page']}:{snippet['line']}"
        sys.stdout.write(f"── {where}\n")
        sys.stdout.flush()
        if snippet["language"] == "python" and snippet["label"]:
            Path(snippet["label"]).write_text(snippet["code"])
        elif snippet["language"] == "python":
            padding = "\n" * (snippet["line"] - 1)  # a traceback then names the line of the page
            exec(compile(padding + snippet["code"], plan["page"], "exec"), main.__dict__)
        elif snippet["language"] == "sh":
            subprocess.run(["bash", "-euo", "pipefail", "-c", snippet["code"]], check=True)
        else:
            check_tree(where, snippet["code"].splitlines())


def check_tree(where, lines):
    """Look for each path below the first one; `…` stands for what is drawn at random."""
    base = Path(lines[0].split()[0])
    for line in lines[1:]:
        if not line.strip():
            continue
        path = line.split()[0]
        if not list(base.glob(path.replace("…", "*"))):
            raise SystemExit(f"{where}: {base / path} is not there, but {sorted(map(str, base.rglob('*')))}")


if __name__ == "__main__":
    os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    ours = sys.modules["__main__"]  # held on to: the page gets a module of that name to itself
    run(json.loads(Path(sys.argv[1]).read_text()))
