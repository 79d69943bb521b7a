#!/bin/sh
# Job 0b8f4c1e-5a3d-4a43-9d0a-3f3c9f0e9a77-007. Written by Berth; runs the user's code at most once, whatever starts it.
set -u
marker_dir=/work/.berth/markers/berth-0b8f-007-1
exec_dir=/work/jobs/0b8f
input_dir=/work/jobs/0b8f
output_dir=/work/jobs/0b8f/output
task=${SLURM_ARRAY_TASK_ID:+.$SLURM_ARRAY_TASK_ID}
owner="${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}${SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}"
restart=${SLURM_RESTART_COUNT:-0}

# The claim appears whole, with its owner inside, or not at all. A requeued job finds its own claim and goes on; a
# controller that lost its state starts a job again without counting that as a restart, and then nothing may run.
claim=$marker_dir/claim$task
fresh=
if [ ! -d "$claim" ] && mine=$(mktemp -d "$marker_dir/claiming.XXXXXX"); then
    { printf '%s\n' "$owner" > "$mine/owner" && printf '%s\n' "$restart" > "$mine/restart" &&
        mv -T "$mine" "$claim" && fresh=yes; } 2>/dev/null || rm -rf "$mine"
fi
holder=$(cat "$claim/owner" 2>/dev/null)
before=$(cat "$claim/restart" 2>/dev/null)
if [ "$holder" != "$owner" ] || [ -e "$marker_dir/void" ]; then
    echo "tapisjob: this run belongs to ${holder:-nobody}, not to $owner; nothing was started" >&2
    exit 119
fi
if [ -z "$fresh" ] && [ "$restart" -le "${before:-0}" ]; then
    echo "tapisjob: $owner was started before, and this is no requeue; nothing was started" >&2
    exit 119
fi
printf '%s\n' "$restart" > "$claim/restart"
rm -f "$marker_dir/exit$task" # how a run ended that was put back in the queue says nothing of this one

record() {
    printf '%s\n' "$1" > "$2.$$" && mv -f "$2.$$" "$2"
}
finish() {
    record "$1" "$output_dir/tapisjob.exitcode$task"
    record "$1" "$marker_dir/exit$task"
    exit "$1"
}
refuse() {
    echo "tapisjob: $1" >&2
    finish 127
}
# A signal ends the user's code, which is in this process group; this shell stays to record how it ended.
trap : HUP INT TERM USR1 USR2

mkdir -p "$exec_dir" "$input_dir" "$output_dir" && cd "$exec_dir" || refuse "cannot use the directories of the job"
env_file=$exec_dir/tapisjob.env
[ -r "$env_file" ] || refuse "$env_file cannot be read"
if runtime=$(command -v apptainer); then
    prefix=APPTAINERENV_
elif runtime=$(command -v singularity); then
    prefix=SINGULARITYENV_
else
    refuse "neither apptainer nor singularity was found in PATH=$PATH"
fi
export APPTAINER_NO_EVAL=1 SINGULARITY_NO_EVAL=1  # values are data: the container's shell must not expand them
export APPTAINER_NOHTTPS=1 SINGULARITY_NOHTTPS=1
# Berth brings the image while the job waits in the queue, and says here where it lies.
trap 'finish 143' HUP INT TERM
waited=0
until [ -e "$marker_dir/image.sh" ] || [ "$waited" -ge 1800 ]; do
    [ "$waited" -gt 0 ] || echo "tapisjob: waits for its image, for at most 1800 s" >&2
    sleep 1
    waited=$((waited + 1))
    ls "$marker_dir" > /dev/null # a network file system looks for new names when a directory is opened
done
image=
why="it was not brought here within $waited s"
[ ! -e "$marker_dir/image.sh" ] || . "$marker_dir/image.sh"
trap : HUP INT TERM
if [ -z "$image" ]; then
echo "tapisjob: $why; the container runtime fetches the image itself" >&2
image=docker://registry.example.org/tools/hello:1
# Fetches that fill an empty cache at the same time break it: those that share one take turns.
turns=${APPTAINER_CACHEDIR:-${SINGULARITY_CACHEDIR:-${HOME:-/tmp}/.apptainer/cache}}/berth
in_turn() {
    mkdir -p "$turns" 2>/dev/null || { "$@"; return; }
    ( flock 9 2>/dev/null; "$@" ) 9> "$turns/lock"
}
fetched=$turns/09db58320ab2b3e522129b54145cff4464d4fac672e55f13e73fcca93b6d0234
fetch() {
    [ -e "$fetched" ] && return
    "$runtime" -q pull --force "$marker_dir/image.$owner.sif" docker://registry.example.org/tools/hello:1 || return
    rm -f "$marker_dir/image.$owner.sif"
    : > "$fetched"
}
[ -n "${APPTAINER_DISABLE_CACHE:-}" ] || [ -e "$fetched" ] || in_turn fetch || refuse "the image could not be fetched"
fi
(
    set -- "$prefix" "$runtime" "$image"
    . "$env_file"
    exec "$2" -q run --pwd /TapisExec --bind /work/jobs/0b8f:/TapisExec --bind /work/jobs/0b8f:/TapisInput --bind /work/jobs/0b8f/output:/TapisOutput "$3" --greeting 'it'"'"'s $HOME'
) </dev/null
finish "$?"
