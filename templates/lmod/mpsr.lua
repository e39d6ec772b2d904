-- Lmod: the command mpsr and its manual pages, where PREFIX is on nobody's PATH. `make install` puts it, with the prefix filled
-- in, below share/mpsr/lmod: link it into a directory of MODULEPATH as mpsr/VERSION.lua.
help([[
mpsr: jobs on one GPU survive each other's GPU faults.

    sbatch --mps --gres=shard:1 job.sh
    mpsr log -j JOB             what happened to a job
    man 7 mpsr                  the rest
]])
whatis("Name: mpsr")
whatis("Description: fault-resilient NVIDIA MPS for Slurm")

local prefix = "@PREFIX@"
prepend_path("PATH", pathJoin(prefix, "bin"))
prepend_path("MANPATH", pathJoin(prefix, "share/man"))
