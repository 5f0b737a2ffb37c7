"""Judge files that somebody else exported: other names, other layouts, no sidecars.

A ``contract.toml`` beside the files says what is what (``contract_file``); without one, ``guess``
proposes it. ``importing`` copies the files under our names, with sidecars; ``layouts`` runs each
once and says which axes are not what they are called.

What is declared is adapted and judged like our own files. What is declared wrongly is adapted too,
so that the rest can be judged, and is a contract mismatch in plain words.
"""
