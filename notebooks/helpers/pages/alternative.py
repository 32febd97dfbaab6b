"""Alternative text for every figure, made from its own titles, axes and labels and stored with the output."""

from IPython import get_ipython
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure


def describe(figure: Figure) -> str:
    """One sentence on what is drawn: the title, and for every panel its title, axes and labelled lines or pictures."""
    panels = [words for axis in figure.axes if (words := describe_panel(axis))]
    title = one_line(figure.get_suptitle())
    count = f"{len(panels)} panels" if len(panels) > 1 else ""
    return ". ".join(part for part in [title, count, "; ".join(dict.fromkeys(panels))] if part) + "."


def describe_panel(axis: Axes) -> str:
    """What one panel shows, "" where it has no words of its own."""
    legend = axis.get_legend()
    labels = [text.get_text() for text in legend.get_texts()] if legend else []
    across, up = one_line(axis.get_ylabel()), one_line(axis.get_xlabel())
    axes = f"{across} against {up}" if across and up else across or up
    drawn = "bars" if axis.patches and not axis.lines else "lines" if axis.lines else "picture" if axis.images else ""
    parts = [one_line(axis.get_title()), axes, f"{drawn}: {', '.join(map(one_line, labels))}" if labels else ""]
    return ", ".join(part for part in parts if part)


def one_line(text: str) -> str:
    return " ".join(text.split())


def add_to_figures() -> None:
    """From now on every figure that this notebook shows carries its description as alternative text."""
    if get_ipython() is None:
        return
    plt.switch_backend(plt.get_backend())  # loads it, and with it the drawing of figures as pictures
    formatter = get_ipython().display_formatter.formatters["image/png"]
    draw = formatter.lookup_by_type(Figure)
    if not getattr(draw, "described", False):

        def described(figure):
            drawn = draw(figure)
            data, more = drawn if isinstance(drawn, tuple) else (drawn, {})
            return data if data is None else (data, {**more, "alt": describe(figure)})

        described.described = True
        formatter.for_type(Figure, described)
