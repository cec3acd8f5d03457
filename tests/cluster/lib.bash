# SPDX-License-Identifier: Apache-2.0
# Sourced by the tests of this folder: a real Slurm of four nodes on one machine, and what can happen
# to it.
#
# A test runs in namespaces of its own: the network that it builds, the processes that it starts and
# what it mounts are seen by nobody else and are gone when it ends, however it ends. Inside, each node
# is once more a set of namespaces - its own host name, network, processes, /dev/shm - with a process
# that holds it, so that killing the holder is pulling the plug. This shell is the login node and runs
# the controller.
#
# Slurm's timers are short (node lost after 10 s, 3 s between TERM and KILL), so that minutes of a
# cluster's life take seconds here.
set -euo pipefail

if [ -z "${SHOAL_CLUSTER_INSIDE:-}" ]; then
    for program in slurmctld slurmd sbatch munged ip unshare nsenter mpirun; do
        PATH=$PATH:/usr/sbin:/sbin command -v "$program" > /dev/null || { echo "skipped: no $program here (scripts/setup --check installs it)"; exit 77; }
    done
    [ "$(id -u)" = 0 ] || { echo "skipped: starting nodes needs root"; exit 77; }
    unshare --net --pid --mount --fork true 2> /dev/null || { echo "skipped: namespaces are not allowed here"; exit 77; }
    SHOAL_CLUSTER_INSIDE=1 exec unshare --net --uts --ipc --mount --pid --fork --kill-child --mount-proc bash "$0" "$@"
fi

export PATH=$PATH:/usr/sbin:/sbin
# The login node is no job, whatever this test was started from.
for name in $(compgen -e | grep -E '^(SLURM|PMIX|PMI|OMPI)_' || true); do unset "$name"; done
TRAIN_SECONDS=300
N_NODES=4
NET=10.77.0
mount -t tmpfs tmpfs /dev/shm
ip link set lo up
source "$(dirname "${BASH_SOURCE[0]}")/../e2e/lib.bash"
# This shell is the first process of its namespace: all others end with it, and first.
trap 'exec 2> /dev/null; [ $$ != 1 ] || kill -9 -1 2> /dev/null || true; wait 2> /dev/null || true; rm -rf "$scratch"' EXIT
C=$scratch/cluster
export SLURM_CONF=$C/slurm.conf SHOAL_HOME=$scratch/home
mkdir -p "$C"/{state,log,nodes,tmp} "$SHOAL_HOME"
chmod 755 "$scratch" "$C"
hostname login

say() { echo "$SECONDS s: $*"; }

nodes() { seq -f 'n%g' $N_NODES; }

# until_true SECONDS WHAT COMMAND...: fail after SECONDS of COMMAND not being true.
until_true() {
    local seconds=$1 what=$2 end=$((SECONDS + $1))
    shift 2
    until "$@" > /dev/null 2>&1; do
        [ $SECONDS -lt $end ] || { evidence >&2; fail "no sign of \"$what\" within $seconds s"; }
        sleep 0.2
    done
}

# What a failed test leaves to read. Whatever part of it is not there, the rest is shown.
evidence() {
    squeue -a -o '%i %T %r %N %M' 2>&1 | tail -5 || true
    sinfo -N -o '%N %T %E' 2>&1 || true
    tail -n 15 "$C"/log/slurm*.log 2> /dev/null || true
    find "$scratch" -path "$C" -prune -o \( -name 'slurm-*.log' -o -name jobs.jsonl \) -exec tail -v -n 30 {} +
}

# ---- nodes ----

# on NODE COMMAND...: run it there, in this folder.
on() {
    local node=$1
    shift
    nsenter -t "$(cat "$C/nodes/$node")" --net --uts --ipc --mount --pid --wdns="$PWD" -- "$@"
}

# Switch a node on, or on again.
power_on() {
    local node=$1 i=${1#n} outer pid= k
    # Nodes without disks: /tmp and the spool are empty after a start. Where they are not, PMIx stumbles
    # over the sockets of the steps that were lost (docs/cluster.md).
    rm -rf "$C/nodes/$node" "$C/tmp/$node"/* "$C/spool.$node"/*
    unshare --net --uts --ipc --mount --pid --fork --kill-child --mount-proc bash -c '
        hostname "$0"; mount -t tmpfs tmpfs /dev/shm; mount --bind "$1" /etc/hosts; ip link set lo up
        sleep infinity & wait' "$node" "$C/hosts" < /dev/null > "$C/log/$node.out" 2>&1 &
    outer=$!
    for k in $(seq 500); do
        pid=$(cat /proc/$outer/task/*/children 2> /dev/null | tr -d ' ') || true
        [ -n "$pid" ] && [ "$(nsenter -t "$pid" --uts hostname 2> /dev/null)" = "$node" ] && break
        sleep 0.02
    done
    echo "$pid" > "$C/nodes/$node"
    ip link add "v$i" type veth peer name eth0 netns "$pid"
    ip link set "v$i" master cluster up
    nsenter -t "$pid" --net sh -c "ip addr add $NET.$((10 + i))/24 dev eth0; ip link set eth0 up; ip route add default via $NET.1"
    start_slurmd "$node"
}

start_slurmd() {
    on "$1" slurmd -D -f "$SLURM_CONF" -N "$1" < /dev/null >> "$C/log/slurmd.$1.out" 2>&1 &
}

# Pull the plug: nothing on the node gets to say goodbye, its network included.
power_off() {
    ip link set "v${1#n}" down
    kill -9 "$(cat "$C/nodes/$1")"
    until_true 20 "$1 is off" eval "! kill -0 $(cat "$C/nodes/$1")"
    ip link del "v${1#n}" 2> /dev/null || true
}

cut_link() { ip link set "v${1#n}" down; }
mend_link() { ip link set "v${1#n}" up; }

# ---- the controller ----

start_controller() {
    slurmctld -D -f "$SLURM_CONF" < /dev/null >> "$C/log/slurmctld.out" 2>&1 &
    controller=$!
    until_true 30 "the controller answers" scontrol ping
}

kill_controller() {
    kill -9 $controller
    wait $controller 2> /dev/null || true
}

write_configuration() {
    local i
    {
        echo "127.0.0.1 localhost"
        echo "$NET.1 login"
        for i in $(seq $N_NODES); do echo "$NET.$((10 + i)) n$i"; done
    } > "$C/hosts"
    cat > "$SLURM_CONF" <<- END
	ClusterName=shoal
	SlurmctldHost=login($NET.1)
	SlurmUser=root
	SlurmdUser=root
	AuthType=auth/munge
	CredType=cred/munge
	AuthInfo=socket=$C/munge.sock,cred_expire=5
	StateSaveLocation=$C/state
	SlurmdSpoolDir=$C/spool.%n
	TmpFS=$C/tmp/%n
	SlurmctldPidFile=$C/slurmctld.pid
	SlurmdPidFile=$C/slurmd.%n.pid
	SlurmctldLogFile=$C/log/slurmctld.log
	SlurmdLogFile=$C/log/slurmd.%n.log
	MailProg=/bin/true
	ProctrackType=proctrack/linuxproc
	TaskPlugin=task/none
	JobAcctGatherType=jobacct_gather/none
	AccountingStorageType=accounting_storage/none
	JobCompType=jobcomp/none
	MpiDefault=pmix
	SwitchType=switch/none
	SelectType=select/cons_tres
	SelectTypeParameters=CR_Core
	SchedulerType=sched/backfill
	SchedulerParameters=bf_interval=1,sched_interval=2,batch_sched_delay=0
	SlurmdParameters=config_overrides
	ReturnToService=2
	PreemptType=preempt/partition_prio
	PreemptMode=REQUEUE
	KillWait=${KILL_WAIT:-5}
	UnkillableStepTimeout=10
	SlurmdTimeout=10
	SlurmctldTimeout=10
	MessageTimeout=5
	TCPTimeout=2
	MinJobAge=300
	JobRequeue=1
	GresTypes=gpu
	END
    for i in $(seq $N_NODES); do
        mkdir -p "$C/spool.n$i" "$C/tmp/n$i"
        echo "NodeName=n$i NodeAddr=$NET.$((10 + i)) CPUs=2 RealMemory=1000 Gres=gpu:1 State=UNKNOWN"
    done >> "$SLURM_CONF"
    {
        echo "PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE PriorityTier=1 State=UP"
        echo "PartitionName=urgent Nodes=ALL MaxTime=INFINITE PriorityTier=2 State=UP"
    } >> "$SLURM_CONF"
    # Slurm takes a character device with a number for a GPU.
    mknod -m 666 "$C/gpu0" c 1 3
    echo "NodeName=n[1-$N_NODES] Name=gpu File=$C/gpu0" > "$C/gres.conf"
    echo "CgroupPlugin=cgroup/v1" > "$C/cgroup.conf"
}

all_idle() { [ "$(sinfo -h -N -p main -o %T | grep -c '^idle$')" = $N_NODES ]; }

cluster_up() {
    local node
    write_configuration
    mount --bind "$C/hosts" /etc/hosts
    ip link add cluster type bridge
    ip addr add $NET.1/24 dev cluster
    ip link set cluster up
    (umask 077 && head -c 128 /dev/urandom > "$C/munge.key")
    munged --force --key-file="$C/munge.key" --socket="$C/munge.sock" --pid-file="$C/munge.pid" --log-file="$C/log/munge.log" --seed-file="$C/munge.seed"
    start_controller
    for node in $(nodes); do power_on "$node"; done
    until_true 60 "all nodes are idle" all_idle
    # What Open MPI needs to find the right network, and to share two cores. The fence that this
    # Slurm's PMIx uses by default lets ranks leave MPI_Init too early now and then.
    cat > "$SHOAL_HOME/site.yaml" <<- END
	cpus_per_rank: 1
	warn_seconds: 30
	setup:
	  - export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
	  - export SLURM_PMIX_FENCE=ring
	  - export OMPI_MCA_btl_tcp_if_include=$NET.0/24 OMPI_MCA_oob_tcp_if_include=$NET.0/24
	  - export OMPI_MCA_btl=self,vader,tcp OMPI_MCA_btl_vader_single_copy_mechanism=none
	  - export OMPI_MCA_hwloc_base_binding_policy=none OMPI_MCA_rmaps_base_oversubscribe=1
	END
    say "cluster up"
}

# ---- jobs ----

# What every run of these tests is: small, over four shards, a checkpoint every few steps.
job_config="$small_config shards=4 checkpoint.every_steps=5"
endless=steps=1000000

# submit RUN [ARGUMENT]...: prints what shoal submit prints; the job's id is in $job.
submit() {
    local run=$1
    shift
    # shellcheck disable=SC2086
    "$SHOAL" submit --run "$scratch/$run" data="$PACK" $job_config "$@" > "$run.submitted" || { cat "$run.submitted" >&2; fail "shoal submit"; }
    job=$(sed -n 's/^job //p' "$run.submitted")
}

state_of() { scontrol show job "$1" 2> /dev/null | sed -n 's/.*JobState=\([A-Z_]*\).*/\1/p' | head -1; }
# Out of the queue, not only cancelled: until its nodes are free, the run is not submitted again.
is_gone() { [ -z "$(squeue -h -j "$1" -o %T)" ]; }
is_state() { [ "$(state_of "$1")" = "$2" ]; }
restarts_of() { scontrol show job "$1" 2> /dev/null | sed -n 's/.*Restarts=\([0-9]*\).*/\1/p'; }

steps_done() { tail -n 1 "$1/ledger.csv" 2> /dev/null | cut -d, -f1 | grep . || echo 0; }
past_step() { [ "$(steps_done "$1")" -ge "$2" ]; }
has_checkpoint() { ls "$1"/checkpoints/step-* > /dev/null; }

# wait_done RUN SECONDS: until the newest job of the run ended well.
wait_done() {
    until_true "$2" "$1 is done" grep -q '"event":"end".*"code":0' "$1/jobs.jsonl"
}

# same_as_undisturbed RUN: a run of as many steps that nothing happened to has the same bytes, and
# used the same crops. It is made last: how far RUN got depends on how fast this machine is.
same_as_undisturbed() {
    local steps
    steps=$(($(steps_done "$1") + 1))
    # shellcheck disable=SC2086
    train 1 whole ${job_config#"$small_config"} steps=$steps
    same_model whole "$1"
    cmp whole/ledger.csv "$1/ledger.csv" || fail "the ledgers differ"
    say "$1: the bytes of an undisturbed run of $steps steps"
}

# finish RUN [ARGUMENT]...: submit once more, a few steps beyond the newest checkpoint.
finish() {
    local run=$1 newest
    shift
    newest=$(find "$run/checkpoints" -name 'step-*' | sort | tail -n 1)
    submit "$run" steps=$((10#${newest##*step-} + 6)) "$@"
    wait_done "$run" 120
}
