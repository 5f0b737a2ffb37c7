"""``--device adb[:SERIAL]``: a phone at the end of a cable."""
