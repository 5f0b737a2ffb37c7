"""What the exporters' command lines do once they are parsed: export, bundle, print, exit status."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from exporters.pipeline.bundle import check_package_options, write_bundle
from exporters.pipeline.exporting import Exported, export
from exporters.pipeline.options import ExportOptions, OptionError
from exporters.pipeline.written import print_table
from exporters.variants import named, presented, variant
from exportgate.contract import LOG_PROBS, Interface

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def export_command(outputs: Mapping[str, Path | None], options: ExportOptions) -> Exported:
    """Run an exporter's command line: export what was asked for and print the table.

    Files that failed are named on standard error, a line each. There is no bundle without them.

    Args:
        outputs: Variant's name to its path; None where it was not asked for. A step that gives
            log-probabilities says so in its name, whatever the path is.
        options: What to export from, and how.

    Raises:
        OptionError: No output is named.
        BundleError: The files cannot become the bundle that was asked for.
    """
    wanted = _as_called(outputs, options.interface)
    if not wanted:
        msg = "nothing to export; name at least one output file"
        raise OptionError(msg)
    check_package_options(options.package_dir, options.lexicon)
    done = export(wanted, options)
    if options.package_dir is not None and not done.failures:
        paths = [row.path for row in done.files]
        write_bundle(options.package_dir, paths, lexicon=options.lexicon)
    if done.files:
        print_table(done.files)
        sys.stdout.flush()
    if options.package_dir is not None and done.failures:
        print(f"  no bundle is written to {options.package_dir}: files failed", file=sys.stderr)
    for name, failure in done.failures.items():
        reason = failure.reason.removeprefix(f"{name}: ")
        print(f"error: {name}: {reason}", file=sys.stderr)
    return done


def _as_called(outputs: Mapping[str, Path | None], interface: Interface) -> dict[str, Path]:
    """Return the variants that are called as was asked, and their paths."""
    found = {}
    for name, path in outputs.items():
        row = presented(variant(name), interface)
        if path is not None and row.interface.log_probs and LOG_PROBS not in path.name:
            path = path.with_name(named(path.name, Interface(log_probs=True)))  # noqa: PLW2901
        if path is not None:
            found[row.name] = path
    return found
