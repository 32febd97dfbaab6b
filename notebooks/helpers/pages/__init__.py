"""What lives in a page without a kernel: templates in HTML and plain JavaScript, filled with numbers of a run."""

import re
from pathlib import Path
from uuid import uuid4


def filled(template: str, **values) -> str:
    """A template of this folder with the values in place of {{NAMES}}; {{ID}} is a name that no other output has."""
    values = {"ID": f"page-{uuid4().hex[:8]}", **values}
    text = Path(__file__).with_name(template).read_text(encoding="utf-8")
    return re.sub(r"{{(\w+)}}", lambda match: str(values[match[1]]), text)
