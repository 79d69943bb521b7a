# Submits each intent that standard input lists at most once, $1 at a time. An intent is: marker directory, exec
# directory, output directory, fence, tapisjob.sh, tapisjob.env, and the words of its sbatch command.
#
# Answers one line for each, as soon as it is known: marker US verdict US text. Verdicts: id, failed (sbatch's exit
# status and words), void, stale, busy, broken, untried. Whatever cuts the link, what was begun here is finished here.
trap '' HUP PIPE
HUNG=75
mask=$(umask)

answer() { # VERDICT TEXT
    local text=${2//[$'\n\r']/$'\x1d'}
    printf '%s\n' "${dir##*/}$US$1$US${text:0:1500}"
}

keep() { # FILE TEXT: one write; what lacks its newline was cut short and counts as not there
    printf '%s\n' "$2" >"$1"
}

prepare() {
    umask 077
    printf '%s' "$script" >"$exec_dir/tapisjob.sh" && printf '%s' "$env" >"$exec_dir/tapisjob.env" && : >"$dir/tried"
}

submit() {
    local said status known=0 id='' dir=$1 exec_dir=$2 fence=$4 script=$5 env=$6
    shift 6
    if ! { exec 9>>"$dir/lock"; } 2>/dev/null; then
        answer broken "$( (umask 077 && mkdir -p "$dir" && : >>"$dir/lock") 2>&1)"
        return
    fi
    flock -n 9 || { answer busy "$?"; return; }
    [ ! -e "$dir/fence" ] || read -r known <"$dir/fence"
    ((fence >= known)) || { answer stale "$known"; return; }
    ((fence == known)) || printf '%s\n' "$fence" >"$dir/fence"
    [ ! -e "$dir/id" ] || read -r id <"$dir/id" || id=
    [ -z "$id" ] || { answer id "$id"; return; }
    [ ! -e "$dir/void" ] || { answer void ''; return; }
    # Tried before, and the answer was lost or bad: trying again could make two. What became of it, find finds out.
    [ ! -e "$dir/tried" ] || { answer failed "$(cat "$dir/tried")"; return; }
    if ! prepare 2>/dev/null; then
        said=$(prepare 2>&1) || { answer broken "$said"; rm -f "$dir/tried"; return; }
    fi
    umask "$mask"
    said=$(timeout -k 5 30 "$@" "$exec_dir/tapisjob.sh" 2>&1 </dev/null 9>&-)
    status=$?
    if [ "$status" = 0 ] && [[ $'\n'$said$'\n' =~ $'\n'([0-9]+)(';'[^$'\n']*)?$'\n' ]]; then
        id=${BASH_REMATCH[1]}
        keep "$dir/id" "$id"
        answer id "$id"
    else
        keep "$dir/tried" "$status $said"
        answer failed "$status $said"
        ((status != 124 && status != 137)) || return $HUNG
    fi
}

# All of it is read before any of it is done: half an intent is none.
dirs=() fields=() job_dirs=() words=() first=(0)
while read_word dir; do
    for field in exec_dir output_dir fence script env; do
        read_word "$field" || exit 65
        fields+=("${!field}")
    done
    read_words command || exit 65
    dirs+=("$dir")
    job_dirs+=("$exec_dir" "$output_dir")
    words+=("${command[@]}")
    first+=("${#words[@]}")
done
# One call for all; submit says what is wrong with one of them.
(mkdir -p "${job_dirs[@]}"; umask 077 && mkdir -p "${dirs[@]}") 2>/dev/null

running=0 hung=
for index in "${!dirs[@]}"; do
    dir=${dirs[index]}
    if ((running >= $1)); then
        wait -n || [ $? != $HUNG ] || hung=yes
        ((running -= 1))
    fi
    if [ -n "$hung" ]; then
        answer untried 'sbatch did not answer for others'
    else
        submit "$dir" "${fields[@]:index*5:5}" "${words[@]:first[index]:first[index+1]-first[index]}" &
        ((running += 1))
    fi
done
wait
