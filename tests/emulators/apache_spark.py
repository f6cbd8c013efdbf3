"""What Apache Spark needs of a machine."""

from __future__ import annotations

import re
import shutil
import subprocess

LEAST = 17
"""The Java that Spark 4 runs on."""


def has_java() -> bool:
    found = shutil.which("java", path="/usr/bin:/bin")
    if found is None:
        return False
    told = subprocess.run([found, "-version"], capture_output=True, text=True).stderr
    version = re.search(r'version "(\d+)', told)
    return version is not None and int(version[1]) >= LEAST
