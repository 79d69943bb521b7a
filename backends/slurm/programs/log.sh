# At most $3 bytes of file $1 from byte $2 on; nothing when the file is not there yet.
[ -e "$1" ] || exit 0
tail -c "+$(($2 + 1))" -- "$1" | head -c "$3"
status=${PIPESTATUS[0]}
((status == 141)) || exit "$status" # 141: head had enough and hung up
