"""What the exporters' command lines do once they are parsed: export, bundle, print, exit status."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from exporters.pipeline.bundle import check_package_options, write_bundle
from exporters.pipeline.exporting import Exported, export
from exporters.pipeline.outputs import check_paths, chosen_outputs
from exporters.pipeline.written import print_audit, print_table
from exporters.variants import all_presented, named, other_half, variant
from exportgate.contract import LOG_PROBS, Interface

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from exporters.pipeline.options import ExportOptions


def export_command(
    outputs: Mapping[str, Path | None], options: ExportOptions, defaults: Sequence[str] = ()
) -> Exported:
    """Run an exporter's command line: export what was asked for and print the table.

    Files that failed are named on standard error, a line each. There is no bundle without them.

    Args:
        outputs: Variant's name to its path; None where it was not asked for. A step that gives
            log-probabilities says so in its name, whatever the path is.
        options: What to export from, and how.
        defaults: Variants that are written beside the checkpoint if no output is named.

    Raises:
        OptionError: Nothing is to be written, or not there.
        ReplacedInputError: A file would be written over what it is made from.
        BundleError: The files cannot become the bundle that was asked for.
    """
    chosen = chosen_outputs(outputs, defaults, options.checkpoint, options.interface)
    check_paths(chosen, options)
    wanted = _as_called(chosen, options.interface)
    check_package_options(options.package_dir, options.lexicon, options.assets)
    done = export(wanted, options)
    if options.package_dir is not None and not done.failures:
        paths = [row.path for row in done.files]
        write_bundle(options.package_dir, paths, lexicon=options.lexicon, assets=options.assets)
    if done.files:
        print_table(done.files)
        print_audit(done.files)
        sys.stdout.flush()
    if options.package_dir is not None and done.failures:
        print(f"  no bundle is written to {options.package_dir}: files failed", file=sys.stderr)
    for name, failure in done.failures.items():
        reason = failure.reason.removeprefix(f"{name}: ")
        print(f"error: {name}: {reason}", file=sys.stderr)
    return done


def _as_called(outputs: Mapping[str, Path], interface: Interface) -> dict[str, Path]:
    """Return the variants that are called as was asked, and their paths.

    The names of log-probabilities and of half a step say so, whatever name was asked for.
    """
    found = {}
    for name, path in outputs.items():
        plain = variant(name)
        for row in all_presented(plain, interface):
            mine = row.interface
            said = path.name
            if mine.log_probs and LOG_PROBS not in said:
                said = named(said, Interface(log_probs=True))
            if other_half(row) is not None and row is not plain:
                said = named(said, Interface(part=mine.part))
            found[row.name] = path.with_name(said)
    return found
