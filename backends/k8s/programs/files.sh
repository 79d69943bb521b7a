# Files of a volume, for whoever may run commands in a pod that has it: sh -c THIS sh OPERATION PATH...
#
# Paths are relative to the volume's top and hold no "..". Exit status 3: there is no such file; 4: refused; 5: try
# again. Everything else is the tool's own. What is asked of the tools is in busybox and in GNU's alike.
set -u
: >"$BERTH_HOME/used"
top=$BERTH_VOLUME
facts='%f/%s/%Y/%u/%g/'

refuse() {
    printf '%s\n' "$1" >&2
    exit 4
}

missing() {
    exit 3
}

# Where a path really is, into $real; of what does not exist yet, below its nearest parent.
inside() {
    path=$top/$1
    rest=
    while [ ! -e "$path" ]; do
        [ ! -L "$path" ] || refuse "is a link that leads nowhere"
        rest=/${path##*/}$rest
        path=${path%/*}
    done
    real=$(readlink -f -- "$path" && printf x) || exit 1
    real=${real%?x}
    case $real/ in
    "$top"/*) real=$real$rest ;;
    *) refuse "leads out of the system's root directory" ;;
    esac
}

# The same of a name: a link is meant itself, not what it leads to.
named() {
    case $1 in
    */*) inside "${1%/*}" ;;
    *) inside "" ;;
    esac
    real=${real%/}/${1##*/}
}

there() {
    [ -e "$real" ] || [ -L "$real" ] || missing
}

a_file() {
    inside "$1"
    [ ! -d "$real" ] || refuse "is a directory"
    there
    [ -f "$real" ] || refuse "is not a file"
}

no_directory() {
    [ ! -d "$real" ] || refuse "is a directory"
}

# What comes on standard input: pieces, each after a line with its length; after the last one "end" and their sum. All
# of it is read, whatever happens: of a command that leaves something unread, or that needs the end of its input to be
# told, containerd may not say that it has ended, or give it less. "!" on standard output says that no more is wanted.
pieces() {
    while IFS=" " read -r length sum && [ "$length" != end ]; do
        dd bs=1048576 iflag=fullblock,count_bytes "count=$length" status=none | "$@" || set -- nowhere
    done
    heard=yes
}

nowhere() {
    cat >/dev/null
}

onto_new() {
    cat >>"$new" || {
        printf !
        nowhere
        return 1
    }
}

# Standard input into the file $new, which goes again unless something else is made of it.
receive() {
    pieces onto_new
    [ -n "$sum" ] || exit 5
    [ "$(stat -c %s -- "$new")" = "$sum" ] || exit 1
}

leave() {
    status=$?
    [ -z "$new" ] || rm -f -- "$new"
    [ -n "$heard" ] || {
        printf !
        pieces nowhere
    }
    exit "$status"
}

operation=$1
shift
case $operation in
stat)
    inside "$1"
    there
    exec stat -c "$facts" -- "$real"
    ;;
list)
    inside "$1"
    there
    stat -c "$facts" -- "$real" || exit
    [ -d "$real" ] || exec printf .
    cd -- "$real" || exit
    [ -r . ] || refuse "may not be read"
    find . -mindepth 1 -maxdepth 1 -exec stat -c "$facts%n" {} + 2>/dev/null
    exec printf . # what vanished meanwhile is no entry
    ;;
read) # PATH OFFSET BYTES: how many come, and a line break before them; no BYTES: all there are
    a_file "$1"
    size=$(stat -c %s -- "$real") || exit
    left=$((size > $2 ? size - $2 : 0))
    [ -z "$3" ] || [ "$3" -ge "$left" ] || left=$3
    printf '%s\n' "$left"
    exec dd "if=$real" bs=1048576 iflag=skip_bytes,count_bytes "skip=$2" "count=$left" status=none
    ;;
write) # PATH NAME MODE: standard input becomes a file of that name beside the path, which then takes its place
    new= heard=
    trap leave EXIT
    inside "$1"
    no_directory
    umask 022
    mkdir -p -- "${real%/*}" || exit
    new=${real%/*}/$2
    (umask 077 && : >"$new") || exit
    receive
    chmod -- "$3" "$new" || exit
    dd if=/dev/null "of=$new" conv=notrunc,fsync status=none || exit
    no_directory
    mv -f -- "$new" "$real" || exit
    ;;
run) # NAME COMMAND...: with standard input from a file of that name
    heard= new=$BERTH_HOME/$1
    trap leave EXIT
    shift
    (umask 077 && : >"$new") || exit
    receive
    "$@" <"$new"
    ;;
mkdir)
    inside "$1"
    exec mkdir -p -- "$real"
    ;;
move)
    named "$1"
    there
    from=$real
    inside "$2"
    case $real/ in "$from"/*) refuse "lies within what is moved" ;; esac
    no_directory
    mkdir -p -- "${real%/*}" || exit
    exec mv -f -- "$from" "$real"
    ;;
copy)
    inside "$1"
    there
    from=$real
    inside "$2"
    case $real/ in "$from"/*) refuse "lies within what is copied" ;; esac
    if [ -d "$from" ]; then
        mkdir -p -- "$real" || exit
        exec cp -a -- "$from/." "$real/"
    fi
    no_directory
    mkdir -p -- "${real%/*}" || exit
    exec cp -a -- "$from" "$real"
    ;;
delete)
    named "$1"
    there
    exec rm -rf -- "$real"
    ;;
checksum)
    a_file "$1"
    exec sha256sum <"$real"
    ;;
*)
    refuse "$operation is no operation"
    ;;
esac
