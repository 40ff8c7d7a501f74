"""usage: interrupted.py SIGNAL COMMAND...

Runs a command whose append has to wait, sends it the signal while it waits, and
prints after how many milliseconds it was gone.
"""

import signal
import subprocess
import sys
import time

from still import wait_until_still

child = subprocess.Popen(
    sys.argv[2:],
    # A shell's background jobs ignore SIGINT, and hand that on.
    preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    stderr=subprocess.PIPE,
)
try:
    wait_until_still(lambda: [child.pid])
except ProcessLookupError:
    raise SystemExit(f"it did not wait: {child.stderr.read().decode()}") from None
sent = time.monotonic()
child.send_signal(signal.Signals[sys.argv[1]])
try:
    child.wait(timeout=20)
except subprocess.TimeoutExpired:
    child.kill()
    raise SystemExit("it went on waiting for 20 seconds") from None
print(round((time.monotonic() - sent) * 1000))
