/* Rendered from resilience/contract/contract.toml by `python -m resilience.contract.render`. Do not edit:
 * tests/unit/test_contract.py fails when this file is stale. */
#ifndef MPSR_CONTRACT_H
#define MPSR_CONTRACT_H

#define MPSR_TAG "mpsr"
#define MPSR_WIRE_CHARSET "abcdefghijklmnopqrstuvwxyz0123456789=;,.-"
#define MPSR_WIRE_MAX_BYTES 512
#define MPSR_PROTOCOL_VERSION 1
#define MPSR_MAX_MESSAGE_BYTES 32768

/* names of environment variables */
#define MPSR_ENV_CONFIG "MPSR_CONFIG"
#define MPSR_ENV_JOB_CONTROL "MPSR"
#define MPSR_ENV_JOB_CONTROL_SCRIPT "SPANK_MPSR"
#define MPSR_ENV_JOB_CONTROL_STEP "SLURM_SPANK_MPSR"
#define MPSR_ENV_OPTIONS "MPSR_OPTIONS"
#define MPSR_ENV_LATE "MPSR_LATE"
#define MPSR_ENV_LATE_GRES "MPSR_LATE_GRES"
#define MPSR_ENV_LEASE "MPSR_LEASE"
#define MPSR_ENV_ARGV0 "MPSR_ARGV0"
#define MPSR_ENV_LAUNCHER "MPSR_LAUNCHER"
#define MPSR_ENV_ALONE "MPSR_ALONE"
#define MPSR_ENV_BROUGHT "MPSR_BROUGHT"
#define MPSR_ENV_FD "MPSR_FD"
#define MPSR_ENV_ROLE "MPSR_ROLE"
#define MPSR_ENV_KEEPER "MPSR_KEEPER"
#define MPSR_ENV_TOKEN "MPSR_TOKEN"
#define MPSR_ENV_STANDBY_TOKEN "MPSR_STANDBY_TOKEN"
#define MPSR_ENV_PROGRAM "MPSR_PROGRAM"
#define MPSR_ENV_ENDING_SOCKET "MPSR_ENDING_SOCKET"
#define MPSR_ENV_ENDING_LIBRARY "MPSR_ENDING_LIBRARY"
#define MPSR_ENV_STDIO "MPSR_STDIO"
#define MPSR_ENV_COLOR "MPSR_COLOR"
#define MPSR_ENV_SPILL "MPSR_SPILL"
#define MPSR_ENV_PYTHON "MPSR_PYTHON"
#define MPSR_ENV_SPILL_MS "MPSR_SPILL_MS"

/* paths; %s in the order of the comment */
#define MPSR_PATH_CONFIG "/etc/slurm/mpsr.yaml"
#define MPSR_PATH_RUN "/run/mpsr"
#define MPSR_PATH_LOG "/var/log/mpsr"
#define MPSR_PATH_LAUNCHER "/usr/libexec/mpsr/mpsr-launch"
#define MPSR_PATH_NODE "%s/%s" /* run, node */
#define MPSR_PATH_AGENT_SOCKET "%s/%s/agent.sock" /* run, node */
#define MPSR_PATH_AGENT_DOOR "%s/%s/agents/%s.sock" /* run, node, uid */
#define MPSR_PATH_HOOK_SOCKET "%s/%s/hooks.sock" /* run, node */
#define MPSR_PATH_LEASE "%s/%s/jobs/%s.lease" /* run, node, job */
#define MPSR_PATH_HERE_LEASE "%s/.here/jobs/%s.lease" /* run, job */
#define MPSR_PATH_HERE_PIPE "%s/.here/jobs/%s.pipe" /* run, job */
#define MPSR_PATH_LATE_LOCK "%s/%s/late.lock" /* run, node */
#define MPSR_PATH_JOB_DIR "%s/%s/jobs/%s" /* run, node, job */
#define MPSR_PATH_SPILL_NOTES "%s/%s/jobs/%s/spills" /* run, node, job */
#define MPSR_PATH_REQUEUE_MARK "%s/%s/jobs/%s.requeue" /* run, node, job */
#define MPSR_PATH_DOMAIN "%s/%s/d/%s" /* run, node, key */
#define MPSR_PATH_PIPE "%s/%s/d/%s/g%s/%s" /* run, node, key, gpu, color */
#define MPSR_PATH_ACTIVE "%s/%s/d/%s/g%s/active" /* run, node, key, gpu */
#define MPSR_PATH_CUT "%s/%s/d/%s/g%s/cut" /* run, node, key, gpu */
#define MPSR_PATH_PARTITIONS "%s/%s/d/%s/g%s/%s.sm" /* run, node, key, gpu, color */
#define MPSR_PATH_MPS_LOG "%s/%s/d/%s/g%s/%s" /* log, node, key, gpu, color */
#define MPSR_PATH_JOURNAL "%s/%s/journal.jsonl" /* log, node */
#define MPSR_PATH_METRICS "%s/mpsr-%s.prom" /* metrics, node */
#define MPSR_PATH_STRIKES "%s/%s/strikes.json" /* state, node */
#define MPSR_PATH_SPILLS "%s/%s/spills" /* state, node */
#define MPSR_PATH_GONE "%s/%s/gone" /* run, node */
#define MPSR_PATH_GONE_LOGS "%s/%s/gone" /* log, node */

/* Slurm's numbers of steps that are no srun of the user's; sruns' are below LARGEST */
#define MPSR_STEP_INTERACTIVE 0xfffffffau
#define MPSR_STEP_BATCH 0xfffffffbu
#define MPSR_STEP_LARGEST 0xfffffff0u

/* exit codes of our own programs */
#define MPSR_EXIT_OK 0
#define MPSR_EXIT_FAILED 1
#define MPSR_EXIT_USAGE 2
#define MPSR_EXIT_REFUSED 3
#define MPSR_EXIT_NO_ANSWER 4
#define MPSR_EXIT_RECOVERY_FAILED 75
#define MPSR_EXIT_NOT_EXECUTABLE 126
#define MPSR_EXIT_NOT_FOUND 127

/* the options of sbatch, srun and salloc; the kinds are explained in contract.toml */
enum mpsr_kind {
    MPSR_KIND_FLAG,
    MPSR_KIND_CHOICE,
    MPSR_KIND_PERCENT,
    MPSR_KIND_SIZE,
    MPSR_KIND_LIST,
    MPSR_KIND_COUNT,
};

enum mpsr_option {
    MPSR_OPTION_MPS,
    MPSR_OPTION_DOMAIN,
    MPSR_OPTION_THREADS,
    MPSR_OPTION_MEMORY,
    MPSR_OPTION_STATE,
    MPSR_OPTION_STANDBY,
    MPSR_OPTION_RECOVER,
    MPSR_OPTION_RETRIES,
    MPSR_OPTION_ON_CULPRIT,
    MPSR_OPTION_RANKS,
    MPSR_OPTION_SERVERS,
    MPSR_OPTION_UNATTACHED,
    MPSR_OPTION_ENDINGS,
    MPSR_OPTION_REQUIRE,
    MPSR_OPTIONS
};

/* X(option, key, env, kind, choices joined by ',', max, default, arg, help), in the contract's order */
#define MPSR_OPTION_TABLE(X) \
    X("mps", "mps", "MPSR_MPS", MPSR_KIND_FLAG, "", \
      0, "off", "off", \
      "run the tasks under a resilient MPS server; --mps=off switches it off") \
    X("mps-domain", "domain", "MPSR_DOMAIN", MPSR_KIND_CHOICE, "job,user,shared", \
      0, "user", "job|user|shared", \
      "who shares an MPS server, and so its faults, with this job") \
    X("mps-threads", "threads", "MPSR_THREADS", MPSR_KIND_PERCENT, "", \
      0, "", "PCT", \
      "share of the GPU's threads for each task (with SM partitions: for the job), 1 to 100 percent") \
    X("mps-memory", "memory", "MPSR_MEMORY", MPSR_KIND_SIZE, "", \
      0, "", "SIZE", \
      "device memory limit of each task, such as 4G") \
    X("mps-state", "state", "MPSR_STATE", MPSR_KIND_SIZE, "", \
      0, "", "SIZE", \
      "most kept state that each task may hold, such as 2G") \
    X("mps-standby", "standby", "MPSR_STANDBY", MPSR_KIND_FLAG, "", \
      0, "on", "off", \
      "keep a hot standby on a spare server; --mps-standby=off does without") \
    X("mps-recover", "recover", "MPSR_RECOVER", MPSR_KIND_LIST, "standby,restore,relaunch,requeue", \
      0, "standby,restore,relaunch,requeue", "RUNG,...", \
      "rungs of the recovery ladder that may be used") \
    X("mps-retries", "retries", "MPSR_RETRIES", MPSR_KIND_COUNT, "", \
      100, "3", "N", \
      "recoveries of one task before the job is requeued") \
    X("mps-on-culprit", "on-culprit", "MPSR_ON_CULPRIT", MPSR_KIND_CHOICE, "fail,quarantine,requeue", \
      0, "fail", "fail|quarantine|requeue", \
      "what becomes of this job when it caused the fault itself") \
    X("mps-ranks", "ranks", "MPSR_RANKS", MPSR_KIND_CHOICE, "auto,independent,together", \
      0, "auto", "auto|independent|together", \
      "can a task of a step come back alone? auto: unless its program is MPI's") \
    X("mps-servers", "servers", "MPSR_SERVERS", MPSR_KIND_CHOICE, "auto,gpu,job", \
      0, "auto", "auto|gpu|job", \
      "MPS servers for each GPU, or over all GPUs of the job? auto: job, when its tasks may have several whole GPUs") \
    X("mps-unattached", "unattached", "MPSR_UNATTACHED", MPSR_KIND_CHOICE, "warn,fail", \
      0, "warn", "warn|fail", \
      "what happens to a process of the job that computes outside its MPS servers or share: told, or ended") \
    X("mps-endings", "endings", "MPSR_ENDINGS", MPSR_KIND_CHOICE, "plain,safe", \
      0, "plain", "plain|safe", \
      "safe: before a signal ends a process its work is taken off the GPU") \
    X("mps-require", "require", "MPSR_REQUIRE", MPSR_KIND_CHOICE, "mps,standby,isolation", \
      0, "mps", "mps|standby|isolation", \
      "refuse to run with less than this")

#endif
