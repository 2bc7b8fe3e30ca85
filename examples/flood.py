"""A flood by hand: plan with the manager, render with best of 4, then change one root."""

from __future__ import annotations

import floodstage
from floodstage.decoding.draws import Drawing

flood = floodstage.load_flood("flood-manager")
result = flood.generate(
    "A train travels at 42 km per hour for 5 hours. How far does it get?",
    roots=120,
    drawing=Drawing(k=4),
)
print(result.text)
print(f"{len(result.roots)} roots at {result.roots_per_s:,.0f} a second, tau {result.tau:.2f}")
for span in result.spans:
    print(f"{1e3 * span.self_s:8.2f} ms  {' / '.join(span.path)}")

# An edit renders one root; every other character stays what it was.
hierarchy, decoder = flood.hierarchy, flood.decoder()
before = decoder.render(hierarchy.encode("What is 17 + 24?"))
at = before.roots.index(hierarchy.encode("2")[0])
after = decoder.edit(before, at, hierarchy.encode("3")[0])
print(f"{before.text!r} became {after.text!r}")
