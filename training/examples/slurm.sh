#!/usr/bin/env bash
# One training on SLURM: one node with 8 GPUs, or several (sbatch --nodes=2 ...).
#
#     sbatch training/examples/slurm.sh my-run.toml --set run.folder=/shared/runs/my-run
#
# The run's folder must be on a file system that all nodes share. A job that is preempted, or comes to its time
# limit, is queued again and continues where its last checkpoint is; a wrong configuration is not tried again.
# PREFORCH_ENV: the environment that preforch is installed in.
#
#SBATCH --job-name=preforch
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --mem=0
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=preforch-%j.log
# To this script alone, five minutes before the time limit.
#SBATCH --signal=B:USR1@300
set -euo pipefail

config=${1:?usage: sbatch slurm.sh CONFIG [--set section.key=value ...]}
source "${PREFORCH_ENV:-.venv}/bin/activate"
# What a hub was asked for once, every node finds.
export HF_HOME=${HF_HOME:-$PWD/huggingface}

requeue() {
    echo "time limit: job $SLURM_JOB_ID is queued again" >&2
    kill -TERM "$training" 2> /dev/null || true
    wait "$training" || true
    scontrol requeue "$SLURM_JOB_ID"
    exit 0
}
trap requeue USR1

if [ "$SLURM_JOB_NUM_NODES" -eq 1 ]; then
    srun preforch train all "$config" --nproc "$SLURM_GPUS_ON_NODE" "${@:2}" &
else
    # Read whole: where `head` closes the pipe early, pipefail ends the job.
    mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
    srun torchrun --nnodes "$SLURM_JOB_NUM_NODES" --nproc-per-node "$SLURM_GPUS_ON_NODE" \
        --rdzv-id "$SLURM_JOB_ID" --rdzv-backend c10d --rdzv-endpoint "${nodes[0]}:29500" \
        -m preforch_cli train all "$config" "${@:2}" &
fi
# In the background, so that the signal is heard.
training=$!
wait "$training"
