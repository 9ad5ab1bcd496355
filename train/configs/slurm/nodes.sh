#!/bin/bash
# Training on several machines under SLURM, taken up again by itself after a time limit or pre-emption:
#   sbatch train/configs/slurm/nodes.sh train/spgdd_gpt.py --config train/configs/spgdd_gpt.yaml ...
# Change: machines, GPUs and cores of each, hours. `--ntasks-per-node` is the GPUs of a machine.
#SBATCH --job-name=defect-hub
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --output=%x-%j.log
#SBATCH --open-mode=append
#SBATCH --requeue
# Five minutes before the end, to every process: it finishes its step, writes a checkpoint and leaves with code 75.
#SBATCH --signal=USR1@300

MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export MASTER_ADDR MASTER_PORT=$((20000 + SLURM_JOB_ID % 10000))
# On a disk of each machine: a cache that machines share is slow, and they would write it all at once.
export HF_DATASETS_CACHE=${TMPDIR:-/tmp}/datasets-$SLURM_JOB_ID
export OMP_NUM_THREADS=$SLURM_CPUS_PER_TASK
if [ "$SHARDED" = fsdp2 ]; then # what `accelerate launch` would read from configs/accelerate/fsdp2.yaml
    export ACCELERATE_USE_FSDP=true FSDP_VERSION=2 FSDP_RESHARD_AFTER_FORWARD=true FSDP_OFFLOAD_PARAMS=false
    export FSDP_AUTO_WRAP_POLICY=TRANSFORMER_BASED_WRAP FSDP_TRANSFORMER_CLS_TO_WRAP=LlamaDecoderLayer
    export FSDP_IGNORED_MODULES='(base_model\.model\.)?model\.clip' FSDP_STATE_DICT_TYPE=SHARDED_STATE_DICT
    export FSDP_CPU_RAM_EFFICIENT_LOADING=false
fi

# Plain `python`: `accelerate launch` and torchrun keep signals and exit codes to themselves. Not --kill-on-bad-exit:
# the first process to leave with 75 would have the others killed, and their higher code would be the job's. --wait
# ends a job one process of which is dead.
srun --wait=60 bash -c '
    export RANK=$SLURM_PROCID WORLD_SIZE=$SLURM_NTASKS LOCAL_RANK=$SLURM_LOCALID
    export LOCAL_WORLD_SIZE=$((SLURM_NTASKS / SLURM_NNODES))
    exec python "$@"
' bash "$@"
code=$?
if [ $code -eq 75 ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit $code
