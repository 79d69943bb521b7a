# Makes directories with room in them, then writes files whole; again and again with the same result. Standard input:
# the directories, then for each file its path, mode and content in base64. Answers nothing when all is done, else what
# the system said.
ROOM_BYTES=65536
read_words directories || exit 65
paths=() modes=() contents=()
while read_word path; do
    read_word mode && read_word content || exit 65
    paths+=("$path")
    modes+=("$mode")
    contents+=("$content")
done
((${#directories[@]} == 0)) || mkdir -p -- "${directories[@]}" 2>&1 || exit 0
umask 077
# A file system that is full, or a quota, often lets a directory be made and refuses the first byte in it.
trials=("${directories[@]/%//.berth-room.$$}")
trap 'rm -f -- "${trials[@]}"' EXIT
for trial in "${trials[@]}"; do
    { printf '%*s' "$ROOM_BYTES" '' >"$trial"; } 2>&1 || { echo "${trial%/*}"; exit 0; }
done
for index in "${!paths[@]}"; do
    new=${paths[index]}.berth-$$
    { printf '%s' "${contents[index]}" | base64 -d >"$new" && chmod "${modes[index]}" "$new" && mv -fT "$new" "${paths[index]}"; } 2>&1 ||
        { rm -f "$new"; exit 0; }
done
