#!/usr/bin/env bash
# sbatch slurm.sh, from the folder that paths in %%flagfile count from, on a file system that
# all nodes share. One worker a node; all start again where one ends badly, or a node is lost.
#SBATCH --job-name=%%job
#SBATCH --nodes=%%workers
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=%%cpus
#SBATCH --mem=%%{memory}G
#SBATCH --requeue
#SBATCH --open-mode=append
##SBATCH --gres=gpu:1
set -u
# Slurm runs a copy of this file: TFHASH_FLAGS says where the flags are, if not where you are.
flags=${TFHASH_FLAGS:-$SLURM_SUBMIT_DIR/%%flagfile}
export PYTHON=${PYTHON:-python} TFHASH_FLAGS=$flags TFHASH_CLUSTER=
for host in $(scontrol show hostnames "$SLURM_JOB_NODELIST"); do
  TFHASH_CLUSTER+="${TFHASH_CLUSTER:+, }\"$host:%%port\""
done

# The number of a task is known within it alone.
worker='
export TF_CONFIG="{\"cluster\": {\"worker\": [$TFHASH_CLUSTER]}, \"task\": {\"type\": \"worker\", \"index\": $SLURM_PROCID}}"
exec "$PYTHON" -m tfhash.train --flagfile="$TFHASH_FLAGS"'

for ((try = 0; ; try++)); do
  srun --kill-on-bad-exit=1 bash -c "$worker"
  status=$?
  # 2 is a mistake in the flags, which the next try would make again.
  if ((status == 0 || status == 2 || try >= %%restarts)); then exit "$status"; fi
  echo "slurm.sh: a worker ended with status $status; all start again" >&2
done
