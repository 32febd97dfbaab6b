"""Put the results of the committed runs into a document: `python publishing/scoreboard.py docs/results.md`.

The table stands between two marks; all else stays as it is. `helpers.results.scoreboard` makes it.
"""

import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "notebooks"))
from helpers import results

BEGIN, END = "<!-- scoreboard -->", "<!-- /scoreboard -->"


def update(path: Path) -> None:
    """Put the committed runs between the marks of a file. Without marks ValueError, and the file stays as it was."""
    parts = re.split(f"({BEGIN}|{END})", path.read_text(encoding="utf-8"))
    if parts[1::2] != [BEGIN, END]:
        raise ValueError(f"{path} was left as it is: put a line {BEGIN} and a line {END} where the table belongs.")
    table = f"{BEGIN}\n```text\n{results.scoreboard(results.committed_results)}\n```\n{END}"
    path.write_text(parts[0] + table + parts[-1], encoding="utf-8")


if __name__ == "__main__":
    update(Path(sys.argv[1]))
    print(f"{sys.argv[1]}: scoreboard of {results.COMMITTED} written")
