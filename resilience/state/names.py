"""The names of the contract that the keeper and a program under the supervisor use."""

from resilience.contract import contract, env, exit_code

FD = env("fd")
ROLE = env("role")
ALONE = env("alone")
BROUGHT = env("brought")
ARGV0 = env("argv0")
KEEPER = env("keeper")
TOKEN = env("token")
STANDBY_TOKEN = env("standby_token")
PROGRAM = env("program")
STDIO = env("stdio")
ENDING_LIBRARY = env("ending_library")
SPILL = env("spill")
SPILL_MS = env("spill_ms")

PROTOCOL_VERSION = int(contract()["wire"]["protocol_version"])
STATE_VERSION = int(contract()["wire"]["state_version"])
MAX_FDS = int(contract()["wire"]["max_fds"])

EXIT_OK = exit_code("ok")
EXIT_FAILED = exit_code("failed")
EXIT_USAGE = exit_code("usage")
EXIT_REFUSED = exit_code("refused")
