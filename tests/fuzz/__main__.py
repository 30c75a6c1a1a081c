"""Try attacks on every entry point and print how many were tried, passed and failed, by kind of input and entry point.

    python -m tests.fuzz --count 1000

Every attack made by hand goes through every entry point that takes its kind of file, then `--count` inputs with random damage go
through one each. The same options try the same inputs. Ends with 1 if anything failed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from random import Random

from helpers.cli import HelpFormatter, non_negative_int
from helpers.costs.tables import table
from tests.fuzz import attacks_archives, attacks_models, attacks_runs, attacks_sound, attacks_text, cases, mutations, servers
from tests.fuzz.cases import Attack, Case, Lab

ATTACKS = (
    attacks_models.checkpoint_attacks,
    attacks_models.onnx_attacks,
    attacks_sound.recording_attacks,
    attacks_sound.hdf5_attacks,
    attacks_archives.shard_attacks,
    attacks_archives.zip_attacks,
    attacks_text.table_attacks,
    attacks_text.json_attacks,
    attacks_text.teacher_attacks,
    attacks_runs.run_attacks,
    attacks_runs.data_attacks,
    attacks_runs.package_attacks,
    servers.attacks,
)
SLOW_SHARE = 0.2  # of the inputs with random damage go through entry points that take a second


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("--count", type=non_negative_int, default=1000, help="inputs with random damage")
    parser.add_argument("--attacks", type=non_negative_int, help="draw so many attacks, one entry point each (all, with all)")
    parser.add_argument("--quick", action="store_true", help="leave out the entry points that take a second")
    parser.add_argument("--only", default="", metavar="TEXT", help="kinds and entry points whose names contain this")
    parser.add_argument("--seed", type=int, default=0, help="of the random damage")
    return parser


def made_by_hand(count: int | None, random: Random, quick: bool = False) -> list[Case]:
    """All attacks on all entry points, or `count` of them; a slow entry point is drawn seldom."""
    attacks = list(chain.from_iterable(make() for make in ATTACKS))
    if quick:
        attacks = [attack for attack in attacks if any(entry.is_quick for entry in attack.kind.entries)]

    def case(attack: Attack, entry: cases.Entry) -> Case:
        may_work = entry.leaves_out or entry.is_streamed or not entry.reads_weights  # a stream may be raw PCM, of any length
        must_fail = attack.must_fail and not may_work
        return Case(attack.kind, entry, attack.name, attack.make, must_fail, serve=attack.serve)

    if count is None:
        return [case(attack, entry) for attack in attacks for entry in attack.kind.entries]
    drawn = random.sample(attacks, min(count, len(attacks)))
    return [case(attack, _draw_entry(attack.kind, random, quick)) for attack in drawn]


def with_random_damage(count: int, seed: int, quick: bool = False) -> Iterator[Case]:
    """Inputs that follow from `seed` and their number."""
    kinds = [kind for kind in mutations.BY_KIND if not quick or any(entry.is_quick for entry in kind.entries)]
    weights = [1 + len(kind.entries) for kind in kinds]
    for number in range(count):
        random = Random(f"{seed} {number}")
        [kind] = random.choices(kinds, weights)
        entry, damage = _draw_entry(kind, random, quick), random.choice(mutations.BY_KIND[kind])
        yield Case(kind, entry, f"{damage.__name__} {number}", lambda content, _, d=damage, r=random: d(content, r))


def _draw_entry(kind: cases.Kind, random: Random, quick: bool) -> cases.Entry:
    quick_ones = [entry for entry in kind.entries if entry.is_quick]
    return random.choice(quick_ones if quick_ones and (quick or random.random() > SLOW_SHARE) else kind.entries)


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    by_hand = made_by_hand(args.attacks, Random(args.seed), args.quick)
    undamaged = cases.undamaged_cases() if args.attacks is None else ()
    tried: Counter[tuple[str, str]] = Counter()
    failed: Counter[tuple[str, str]] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        lab = Lab(Path(folder), args.quick)
        for case in chain(undamaged, by_hand, with_random_damage(args.count, args.seed, args.quick)):
            if args.only not in f"{case.kind.name} {case.entry.name}":
                continue
            key = (case.kind.name, case.entry.name)
            problems = lab.run(case)
            tried[key] += 1
            if problems:
                failed[key] += 1
                print(
                    f"{key[0]} | {key[1]} | {case.name}: {'; '.join(problems)}".encode("unicode_escape").decode(),
                    file=sys.stderr,
                    flush=True,
                )
    keys = [*tried, ("all", "")]
    tried["all", ""], failed["all", ""] = sum(tried.values()), sum(failed.values())
    rows = [
        {
            "input": kind,
            "entry point": entry,
            "tried": tried[kind, entry],
            "passed": tried[kind, entry] - failed[kind, entry],
            "failed": failed[kind, entry],
        }
        for kind, entry in keys
    ]
    print(table(rows))
    return int(failed["all", ""] > 0)


if __name__ == "__main__":
    sys.exit(main())
