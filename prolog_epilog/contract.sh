# shellcheck shell=bash disable=SC2034
# Rendered from resilience/contract/contract.toml by `python -m resilience.contract.render`. Do not edit:
# tests/unit/test_contract.py fails when this file is stale.

mpsr_tag=mpsr

# names of environment variables
mpsr_env_config=MPSR_CONFIG
mpsr_env_job_control=MPSR
mpsr_env_job_control_script=SPANK_MPSR
mpsr_env_job_control_step=SLURM_SPANK_MPSR
mpsr_env_options=MPSR_OPTIONS
mpsr_env_late=MPSR_LATE
mpsr_env_late_gres=MPSR_LATE_GRES
mpsr_env_lease=MPSR_LEASE
mpsr_env_argv0=MPSR_ARGV0
mpsr_env_launcher=MPSR_LAUNCHER
mpsr_env_alone=MPSR_ALONE
mpsr_env_brought=MPSR_BROUGHT
mpsr_env_fd=MPSR_FD
mpsr_env_role=MPSR_ROLE
mpsr_env_keeper=MPSR_KEEPER
mpsr_env_token=MPSR_TOKEN
mpsr_env_standby_token=MPSR_STANDBY_TOKEN
mpsr_env_program=MPSR_PROGRAM
mpsr_env_ending_socket=MPSR_ENDING_SOCKET
mpsr_env_ending_library=MPSR_ENDING_LIBRARY
mpsr_env_stdio=MPSR_STDIO
mpsr_env_color=MPSR_COLOR
mpsr_env_spill=MPSR_SPILL
mpsr_env_python=MPSR_PYTHON
mpsr_env_spill_ms=MPSR_SPILL_MS

# paths; {braces} are filled in by resilience.contract.path
mpsr_path_config=/etc/slurm/mpsr.yaml
mpsr_path_run=/run/mpsr
mpsr_path_log=/var/log/mpsr
mpsr_path_launcher=/usr/libexec/mpsr/mpsr-launch
mpsr_path_node='{run}/{node}'
mpsr_path_agent_socket='{run}/{node}/agent.sock'
mpsr_path_agent_door='{run}/{node}/agents/{uid}.sock'
mpsr_path_hook_socket='{run}/{node}/hooks.sock'
mpsr_path_lease='{run}/{node}/jobs/{job}.lease'
mpsr_path_here_lease='{run}/.here/jobs/{job}.lease'
mpsr_path_here_pipe='{run}/.here/jobs/{job}.pipe'
mpsr_path_late_lock='{run}/{node}/late.lock'
mpsr_path_job_dir='{run}/{node}/jobs/{job}'
mpsr_path_spill_notes='{run}/{node}/jobs/{job}/spills'
mpsr_path_requeue_mark='{run}/{node}/jobs/{job}.requeue'
mpsr_path_domain='{run}/{node}/d/{key}'
mpsr_path_pipe='{run}/{node}/d/{key}/g{gpu}/{color}'
mpsr_path_active='{run}/{node}/d/{key}/g{gpu}/active'
mpsr_path_cut='{run}/{node}/d/{key}/g{gpu}/cut'
mpsr_path_partitions='{run}/{node}/d/{key}/g{gpu}/{color}.sm'
mpsr_path_mps_log='{log}/{node}/d/{key}/g{gpu}/{color}'
mpsr_path_journal='{log}/{node}/journal.jsonl'
mpsr_path_metrics='{metrics}/mpsr-{node}.prom'
mpsr_path_strikes='{state}/{node}/strikes.json'
mpsr_path_spills='{state}/{node}/spills'
mpsr_path_gone='{run}/{node}/gone'
mpsr_path_gone_logs='{log}/{node}/gone'

# exit codes of our own programs
mpsr_exit_ok=0
mpsr_exit_failed=1
mpsr_exit_usage=2
mpsr_exit_refused=3
mpsr_exit_no_answer=4
mpsr_exit_recovery_failed=75
mpsr_exit_not_executable=126
mpsr_exit_not_found=127
