"""The egress seal: that nothing leaves is enforced by the Linux kernel, not by this program.

``seal`` runs a command in a network of its own with named ways out; ``lock`` closes the process
that calls it; ``enforced`` and ``abilities`` tell what holds here and what this machine can do.
Standard library only: it has to come before the first thread, and before any driver is loaded.
"""

from batuta_sql.guards.egress.forwards import Forward
from batuta_sql.guards.egress.launcher import seal
from batuta_sql.guards.egress.locking import lock
from batuta_sql.guards.egress.machine import Ability, abilities
from batuta_sql.guards.egress.verify import enforced

__all__ = ["Ability", "Forward", "abilities", "enforced", "lock", "seal"]
