-- A job_submit.lua that says per partition whether jobs run under MPS. Put it beside slurm.conf, with JobSubmitPlugins=lua, or
-- take the functions over into yours. docs/how-to/partitions.md says what it can do and what it cannot.
local force = { shared = true } -- batch jobs have MPS, asked or not; other jobs must ask
local forbid = { alone = true } -- a job that asks for MPS is refused

local TWIN, OPTION = "MPSR_MPS", "SLURM_SPANK__SLURM_SPANK_OPTION_mpsr_mps"

local function partition_of(job, partitions)
  if job.partition ~= nil then
    return job.partition
  end
  for name, partition in pairs(partitions) do
    if partition.flag_default == 1 then
      return name
    end
  end
end

-- true: asked for, false: switched off, nil: not a word of it
local function asked(job)
  for _, text in pairs(job.spank_job_env or {}) do
    if string.match(tostring(text), "^MPSR=mps=on") then
      return true
    end
  end
  local environment = job.environment or {}
  local said = environment[OPTION] or environment[TWIN]
  if said ~= nil then
    return not string.match(said, "off$")
  end
  if string.match("\n" .. (job.script or ""), "\n#SBATCH[^\n]*%-%-mps") then
    return true
  end
end

local function check(job, partitions)
  local name = partition_of(job, partitions)
  local wish = asked(job)
  if forbid[name] and wish then
    slurm.log_user("mpsr: partition " .. name .. ": has no MPS: submit without --mps")
    return slurm.ERROR
  end
  if force[name] and wish ~= true then
    if wish == false or job.script == nil then
      slurm.log_user("mpsr: partition " .. name .. ": jobs run under MPS: submit with --mps")
      return slurm.ERROR
    end
    job.environment[TWIN] = "on"
  end
  return slurm.SUCCESS
end

function slurm_job_submit(job, partitions, uid)
  return check(job, partitions)
end

function slurm_job_modify(job, record, partitions, uid)
  return slurm.SUCCESS
end

return slurm.SUCCESS
