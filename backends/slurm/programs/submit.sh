# Hands over to submit.py, whose text is $2. Red Hat's systems may have Python under another name only.
trap '' HUP PIPE
exec "$(command -v python3 || echo /usr/libexec/platform-python)" -I -c "$2" "$1"
