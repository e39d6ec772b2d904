#!/bin/sh
# systemctl of a system in which no systemd runs: remembers in /tmp/units what was enabled and started, and in /tmp/systemctl what it was
# told. Answers what Ansible's module asks.
units=/tmp/units
verb='' unit=''
for word in "$@"; do
    case $word in
    -*) ;;
    *) if [ -z "$verb" ]; then verb=$word; else unit=${word%.service}; fi ;;
    esac
done
touch "$units"
state() { sed -n "s/^$unit //p" "$units"; }
set_state() {
    sed -i "/^$unit /d" "$units"
    printf '%s %s %s\n' "$unit" "$1" "$2" >>"$units"
}
enabled=$(state | cut -d' ' -f1) active=$(state | cut -d' ' -f2)
enabled=${enabled:-disabled} active=${active:-inactive}
printf '%s\n' "$verb $unit" >>/tmp/systemctl

case $verb in
show)
    if [ -e "/etc/systemd/system/$unit.service" ]; then loaded=loaded; else loaded=not-found; fi
    printf 'LoadState=%s\nActiveState=%s\nUnitFileState=%s\n' "$loaded" "$active" "$enabled"
    ;;
is-enabled) printf '%s\n' "$enabled"; [ "$enabled" = enabled ] ;;
is-active) printf '%s\n' "$active"; [ "$active" = active ] ;;
enable) set_state enabled "$active" ;;
disable) set_state disabled "$active" ;;
start | restart) set_state "$enabled" active ;;
stop) set_state "$enabled" inactive ;;
list-unit-files) printf '%s.service %s\n' "$unit" "$enabled" ;;
esac
