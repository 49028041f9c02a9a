"""The HTML page of a report: its template, its style, and the words for each number."""

from string import Template

from ntk_lab.plot.style import STATUSES

GAP_TEXT = {
    "discretization": (
        "Gradient flow against discrete steps of the same infinite-width kernel: the learning "
        "rate is not zero."
    ),
    "finite-width kernel": (
        "Discrete kernel regression against the linearized finite network: its NTK at "
        "initialization is not the infinite-width one."
    ),
    "feature learning": (
        "The linearized network against the network under full-batch gradient descent: its NTK "
        "moves while it learns."
    ),
    "optimizer": (
        "The network under full-batch gradient descent against the network as it was really "
        "trained, with mini-batches or another optimizer."
    ),
    "total": (
        "Gradient flow of the infinite-width kernel against the network as it was really trained; "
        "gaps may cancel, so it can be less than their sum."
    ),
    "kernel drift": (
        "Change of the empirical NTK in training, relative to the NTK at initialization, on some "
        "training points and for one random combination of the outputs a seed."
    ),
    "verdict": (
        "Predicts: the upper confidence bound of the total gap is below the tolerance. Fails: the "
        "lower bound is above it. Undecided: neither, and how many more seeds would decide."
    ),
}

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --paper: #fff; --soft: #f3f4f6; --line: #d0d4da;
  --muted: #59636e; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e8eb; --paper: #14171b; --soft: #1f242a; --line: #3a424c; --muted: #a0aab4; }
  img { filter: brightness(.9); } .dot { outline: 1px solid #888; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 72rem; background: var(--paper);
  color: var(--ink); font: 16px/1.55 system-ui, sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 .5rem; }
h2 { margin: 2.5rem 0 .75rem; padding-top: 1rem; border-top: 1px solid var(--line); }
h3 { margin: 1.25rem 0 .5rem; font-size: 1rem; }
p { margin: .35rem 0; max-width: 60rem; }
.lead, figcaption, small { color: var(--muted); }
.badges { display: flex; flex-wrap: wrap; gap: .75rem; padding: 0; margin: 1.25rem 0; }
.badge { list-style: none; border-radius: .6rem; padding: .6rem .9rem; min-width: 9rem;
  max-width: 15rem; background: var(--soft); border-left: .5rem solid var(--colour); }
.badge span { display: table; margin: .2rem 0 .3rem; padding: .05rem .6rem; font-size: 1.1rem;
  font-weight: 700; border-radius: 1rem; background: var(--colour); color: #111; }
.badge small { display: block; line-height: 1.3; }
.predicts { --colour: PREDICTS; } .undecided { --colour: UNDECIDED; } .fails { --colour: FAILS; }
td.predicts, td.undecided, td.fails { box-shadow: inset .35rem 0 var(--colour);
  padding-left: .9rem; min-width: 11rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .6rem; text-align: left; border-bottom: 1px solid var(--line);
  vertical-align: top; }
thead th { background: var(--soft); white-space: nowrap; }
td { white-space: nowrap; }
td.predicts, td.undecided, td.fails, .settings td { white-space: normal; }
tbody th { font-weight: 500; color: var(--muted); white-space: nowrap; }
.dot { display: inline-block; width: .7rem; height: .7rem; border-radius: 50%;
  margin-right: .4rem; }
dt { font-weight: 600; margin-top: .6rem; } dd { margin: 0; max-width: 60rem; }
pre { background: var(--soft); padding: .9rem 1rem; border-radius: .5rem; overflow-x: auto;
  font-size: .85rem; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(28rem, 100%), 1fr));
  gap: 1.25rem; }
figure { margin: 1rem 0; } img { width: 100%; background: #fff; border-radius: .5rem;
  border: 1px solid var(--line); }
figcaption { font-size: .9rem; }
"""
for _name, _colour in STATUSES.items():
    _STYLE = _STYLE.replace(_name.upper(), _colour)

PAGE = Template(
    """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>"""
    + _STYLE
    + """</style>
</head>
<body>
<h1>Does kernel regression predict this training run?</h1>
<p class="lead">$lead</p>
<ul class="badges">
$badges
</ul>
$conclusion
<div class="figures">$verdict $scaling</div>
<h2>The error budget</h2>
<p>Each gap has one cause. Gaps are relative to how far the function moved on the test set;
± is the standard error over seeds.</p>
$budgets
$budget
$scaling_section
<h2>How long it holds</h2>
<p>The horizon is the training time until which a gap stays within the tolerance. $horizon_theory
</p>
$horizons
$ensembles
<h2>What moved, and what it means for the predictions</h2>
<div class="figures">$drift $motion $kernel $sharpness</div>
$accuracy
<h2>What the numbers mean</h2>
$meanings
<h2>Settings</h2>
<div class="settings">$settings</div>
<h2>The numbers in Python</h2>
<pre>$load</pre>
</body>
</html>
"""
)
