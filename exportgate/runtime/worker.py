"""The other end of ``isolate``: answer requests until the parent closes the pipe."""

from __future__ import annotations

import importlib
import pickle
import sys
import traceback
from multiprocessing.connection import Connection

from exportgate.garbage import leave_all
from exportgate.runtime.isolate import Handle


def serve(connection: Connection) -> None:
    """Run each requested function; keep the result of ``make``, send back that of ``call``."""
    kept: dict[int, object] = {}
    while True:
        try:
            verb, module, name, args = connection.recv()
        except EOFError:
            return
        answer: tuple[str, object]
        try:
            function = getattr(importlib.import_module(module), name)
            result = function(*(kept[a.key] if isinstance(a, Handle) else a for a in args))
            if verb == "make":
                handle = Handle(len(kept))
                kept[handle.key] = result
                result = handle
            # Pickled here, so that a result that cannot travel is reported like any other error.
            answer = ("answered", pickle.dumps(result))
        except Exception as error:  # noqa: BLE001 - whatever it is, the parent must hear of it
            answer = ("raised", (type(error).__name__, str(error), traceback.format_exc()))
        connection.send(answer)


if __name__ == "__main__":
    serve(Connection(int(sys.argv[1])))
    leave_all()
