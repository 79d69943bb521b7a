# The first lines of every program that runs on a login node. \x02 marks where its answer begins, so that what a login
# script prints is not taken for an answer.
command -v squeue >/dev/null 2>&1 || . /etc/profile >/dev/null 2>&1
set -u
for name in $(compgen -e); do # SBATCH_*, SQUEUE_FORMAT and the like must not change what a tool does
    case $name in
    PATH | HOME | USER | LOGNAME | SHELL | SLURM_CONF | LD_LIBRARY_PATH) ;;
    *) unset "$name" ;;
    esac
done
LC_ALL=C # lengths are bytes
US=$'\x1f'

# A word comes as a line with its length in bytes, then that many bytes: there is nothing that it cannot hold.
read_word() { # NAME
    local -n _word=$1
    local _length
    IFS= read -r _length && [[ $_length =~ ^[0-9]{1,9}$ ]] || return 1
    _word=
    ((_length == 0)) || IFS= read -r -N "$_length" _word
    ((${#_word} == _length))
}

read_words() { # NAME of an array: a word with their number, then the words
    local -n _words=$1
    local _count _one
    read_word _count || return 1
    _words=()
    while ((${#_words[@]} < _count)); do
        read_word _one || return 1
        _words+=("$_one")
    done
}

printf '\x02'
