"""Write the repository's address into README and lectures, with links that open the lectures on Colab and Kaggle.

`python publishing/publish.py https://github.com/owner/name [folder]`, where the folder holds README.md and notebooks/.
Another address replaces the one before; "" takes it away. Colab and Kaggle open what is on GitHub: a repository
elsewhere gets its address written, and no link. Lectures get links of text, so that no page made of them loads a badge.
"""

import json
import re
import sys
from pathlib import Path

COLAB = "https://colab.research.google.com/github/{}/blob/main/notebooks/{}"
KAGGLE = "https://kaggle.com/kernels/welcome?src=https://github.com/{}/blob/main/notebooks/{}"
BADGES = {
    "Colab": "https://colab.research.google.com/assets/colab-badge.svg",
    "Kaggle": "https://kaggle.com/static/images/open-in-kaggle.svg",
}


def checked(address: str) -> str:
    """The address without what may stand at its end. SystemExit where it is none."""
    address = address.strip().removesuffix("/")
    if address.startswith("https://"):
        address = address.removesuffix(".git")
    if address and not re.fullmatch(r"(https|file)://[\w.:~/-]+", address):
        raise SystemExit(f"{address!r} is no address of a repository, such as https://github.com/owner/name")
    return address


def links(address: str, lecture: str) -> dict[str, str]:
    """Where Colab and Kaggle open a lecture; nothing for a repository that is not on GitHub."""
    on_github = re.fullmatch(r"https://github\.com/([\w.-]+/[\w.-]+)", address)
    services = {"Colab": COLAB, "Kaggle": KAGGLE} if on_github else {}
    return {name: form.format(on_github[1], f"{lecture}.ipynb") for name, form in services.items()}


def below_the_title(text: str, paragraph: str) -> str:
    """The text with this paragraph, or none, below its title, in place of an older one."""
    title, _, rest = text.partition("\n\n")
    rest = re.sub(r"\A\[(!\[)?Open in .*?\n\n", "", rest, flags=re.DOTALL)
    return "\n\n".join([title, paragraph, rest] if paragraph else [title, rest])


def readme_paragraph(address: str, lectures: list[str]) -> str:
    """Badges that open the first lecture, and a link to each lecture on each service."""
    first = links(address, lectures[0])
    badges = [f"[![Open in {name}]({BADGES[name]})]({link})" for name, link in first.items()]
    each = [
        f"{name}: " + " ".join(f"[{lecture[:2]}]({links(address, lecture)[name]})" for lecture in lectures)
        for name in first
    ]
    return " ".join(badges) + "\nThe lectures on " + " · ".join(each) if first else ""


def published(path: Path, address: str) -> str:
    """The notebook with the address in its first code cell and the links in its first text."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    title = next(cell for cell in notebook["cells"] if cell["cell_type"] == "markdown")
    launch = next(cell for cell in notebook["cells"] if cell["cell_type"] == "code")
    source, found = re.subn(r'(?m)^REPOSITORY = ".*?"', f'REPOSITORY = "{address}"', "".join(launch["source"]))
    if not found:
        raise SystemExit(f'{path.name}: its first code cell has no line REPOSITORY = "" (docs/contributing.md)')
    paragraph = " · ".join(f"[Open in {name}]({link})" for name, link in links(address, path.stem).items())
    text = below_the_title("".join(title["source"]), paragraph)
    launch["source"], title["source"] = source.splitlines(keepends=True), text.splitlines(keepends=True)
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def publish(address: str, folder: Path) -> None:
    address, paths = checked(address), sorted((folder / "notebooks").glob("*.ipynb"))
    texts = {path: published(path, address) for path in paths}
    readme = folder / "README.md"
    links_to_all = readme_paragraph(address, [path.stem for path in paths])
    texts[readme] = below_the_title(readme.read_text(encoding="utf-8"), links_to_all)
    for path, text in texts.items():
        path.write_text(text, encoding="utf-8")
    print(f"README.md and {len(paths)} lectures name {address or 'no repository'}")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit("Which repository? make publish REPO=https://github.com/owner/name")
    publish(sys.argv[1], Path(*sys.argv[2:3] or [Path(__file__).parents[1]]))
