"""Results come in; what people look at goes out: overlays of masks on pictures, plots, and pages of HTML.

| module | |
|---|---|
| `overlay` | a picture and masks → pixels with outlines and colours |
| `canvas` | a dataset → the picture of an example, or grey where it is not at hand |
| `sketches` | results and their true masks → a way to draw each example |
| `thumbnails` | examples → small encoded overlays, drawn on all cores |
| `figures` | numbers → plots as SVG that follow the page's colours |
| `model_figures` | numbers of several models → plots likewise |
| `page` | a template and its values → one self-contained file |
| `score`, `comparison`, `sweep`, `before_after` | what stands on each kind of page |
| `plot` | leaderboards and results → curves, on Axes of Matplotlib: `rc.plot` |
| `show` | one example → a picture |
| `call` | `rc.report(…)` from Python; this package may itself be called |
"""

from refcocom_gpu.utils.calls import make_callable

make_callable(__name__, "call")
