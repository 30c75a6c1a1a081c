"""A run of archive.py: manifest, plan, workers, and what is written at the end."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from helpers.archive.engine import run
from helpers.archive.inputs import Findings, list_inputs
from helpers.archive.options import check_manifest, tagging
from helpers.archive.output import FAILED, MANIFEST, REPORT, Output
from helpers.archive.parcels import STAGING
from helpers.archive.parquet_files import read_batches
from helpers.archive.plan import Plan
from helpers.archive.pool import Resources, started
from helpers.archive.report import Progress, report_lines, run_report
from helpers.archive.storage import is_remote, local_path
from models.command import printable
from models.errors import UserError, install_command


def write_archive(args: argparse.Namespace, version: str) -> int:
    """Write an archive, or what is left of one; return the exit code: 1 where recordings or files of the input failed."""
    for package in ("ray", "duckdb", "fsspec"):
        if importlib.util.find_spec(package) is None:
            raise UserError(f"this needs {package}, which is not installed: {install_command('archive')}")
    work, manifest = tagging(args, version)
    output = Output(args.output)
    check_places(args.input, output)
    found = output.manifest
    if found is not None:
        check_manifest(found, manifest, args.output)
    findings = Findings()
    plan = planned(args.input, output, findings, found.get("shards", 0) if found else 0)
    manifest |= {"shards": plan.num_shards, "recordings": plan.num_recordings}
    if found != manifest:
        output.write_json(MANIFEST, manifest)
    for problem in findings.problems:
        print(f"error: {printable(problem)}", file=sys.stderr)
    if findings.skipped:
        print(findings.describe_skipped(), file=sys.stderr)
    progress = Progress(manifest["recordings"])
    try:
        if len(output.complete()) < plan.num_shards:
            with started(Resources(args.address, args.decoders, args.networks, args.gpus_per_network)) as pool:
                run(work, plan, output, pool, progress)
    finally:
        progress.close()
    return 1 if finish(output, progress) or findings.problems else 0


def check_places(text: str, output: Output) -> None:
    """Raise `UserError` for no input at all, and for an output within the input, whose files would be listed."""
    if not text:
        raise UserError("INPUT is empty; give a folder, a list, a tar, a Parquet file or an address")
    if not (is_remote(text) or output.folder.is_remote) and Path(output.address).is_relative_to(local_path(text)):
        raise UserError(f"{output.address} is within {text}, so its files would be taken for recordings; give another --output")


def planned(text: str, output: Output, findings: Findings, checked: int) -> Plan:
    """Return the plan of an archive, with what is new in the input; the names in its first `checked` shards are known to differ.

    `UserError` where recordings changed or are gone, or are there twice: then nothing is added.
    """
    plan = Plan(output.address)
    if plan.num_shards:
        changes = plan.compare(list_inputs(text, findings))
        changes.check()
        plan.extend(changes.new)
    else:
        plan.extend(list_inputs(text, findings))
    if plan.num_shards > checked:
        try:
            plan.check_names()
        except UserError:
            plan.cut(checked)
            raise
    return plan


def finish(output: Output, progress: Progress) -> int:
    """Write failed.parquet and report.json, and print the report; return how many recordings failed."""
    output.folder.remove(STAGING)  # what a process left that ended just after a shard became a file
    failed = output.write_failed()
    batches = read_batches(output.folder.path(FAILED), ["error_kind"])
    failures = Counter(kind for batch in batches for kind in batch["error_kind"].to_pylist())
    run_figures = run_report(progress)
    report: dict[str, Any] = {"recordings": progress.recordings, "failures": dict(failures), "last_run": run_figures}
    output.write_json(REPORT, report)
    print("\n".join(report_lines(progress.recordings, failures, run_figures)))
    return failed
