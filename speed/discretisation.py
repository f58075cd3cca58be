"""Cost and peak memory of exact closed evaluation against ``max_bins``: linear in the trie, bounded by blocks.

The grid is thinned, so that it has exactly so many answers; a coarsened one grows tenfold or not at all.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time

from common import load, parser

from calibnb.laws import canonical
from calibnb.laws.params import SpaceParams
from calibnb.trees.attention import answer_log_probabilities
from calibnb.trees.trie import build

BINS = (1001, 2048, 4096, 8192, 16384)


def measure(args: object, bins: int) -> None:
    bench = load(args.weights, args.adapter)  # type: ignore[attr-defined]
    spec = next(s for s in bench.settings if s.family == "gaussian" and s.selected)
    loaded = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    law = canonical.of_spec(spec, SpaceParams(discretisation="thin", num_decimals=5, max_bins=bins))
    trie = build(bench.chat.answer_ids(law.strings), law.probabilities, bench.chat.end_id)
    built = time.perf_counter()
    answer_log_probabilities(bench.body, bench.prompt(spec), trie)
    done = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - loaded
    print(
        f"{bins} {len(law.strings)} {int((~trie.is_end).sum())} "
        f"{built - start:.3f} {done - built:.2f} {peak / 1024:.0f}"
    )


def main() -> None:
    options = parser(__doc__ or "")
    options.add_argument("--bins", type=int, help="measure one size in this process (used by the script itself)")
    args = options.parse_args()
    if args.bins:
        measure(args, args.bins)
        return
    print("max_bins  strings  nodes  build s  evaluate s  ms/node  peak MiB over the loaded model")
    rows = []
    for bins in BINS:  # a fresh process each, so that peaks do not carry over
        out = subprocess.run(
            [sys.executable, *sys.argv, "--bins", str(bins)], check=True, capture_output=True, text=True
        )
        size, strings, nodes, built, evaluated, peak = map(float, out.stdout.split()[-6:])
        rows.append((nodes, evaluated, peak))
        print(
            f"{size:8.0f} {strings:8.0f} {nodes:6.0f} {built:8.3f} {evaluated:11.2f} "
            f"{1000 * evaluated / nodes:8.2f} {peak:8.0f}"
        )
    (n0, t0, m0), (n1, t1, m1) = rows[0], rows[-1]
    print(f"\nlast over first: nodes {n1 / n0:.1f}, time {t1 / t0:.1f}, peak memory {m1 / m0:.1f}")


if __name__ == "__main__":
    main()
