#!/usr/bin/env bash
# run.sh PROGRAM ARGUMENT...
# Runs a program of this machine on an emulated processor with AVX-512, AVX512-VNNI and AVX-VNNI (setup.sh installs it),
# for tests of bits. Standard input and output, the error stream and the exit status are the program's.
#
# The program sees itself, the libraries it links, the files its arguments name (`PATH` or `WORD:PATH`, absolute) and
# an empty working folder with the caller's name; files that it leaves there are brought back. One processor, 1 GB,
# some 50 million instructions a second after 20 seconds of booting.
set -euo pipefail

folder=${TVLMC_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/tvlmc}/emulator
[ -f "$folder/complete-1" ] || { echo "run.sh: no emulator in $folder; xtask/emulator/setup.sh installs it" >&2; exit 125; }
[ $# -ge 1 ] || { echo "usage: run.sh PROGRAM ARGUMENT..." >&2; exit 125; }

work=$(mktemp -d)
[ -n "${TVLMC_EMULATOR_KEEP:-}" ] || trap 'rm -rf "$work"' EXIT
root=$work/root
mkdir -p "$root"/{bin,proc,sys,dev,tmp,tvlmc} "$root$PWD" "$work/iso/boot"
cp /bin/busybox "$folder/port" "$root/bin/"

give() { # a file, at the same place
  mkdir -p "$root$(dirname "$1")"
  cp -L "$1" "$root$1"
}
program=$(readlink -f "$1")
shift
give "$program"
for library in $(ldd "$program" 2>/dev/null | grep -o '/[^ ]*'); do give "$library"; done
quoted() { printf "'%s' " "${1//\'/\'\\\'\'}"; }
line=$(quoted "$program")
for word in "$@"; do
  line+=$(quoted "$word")" "
  file=${word#*:}
  if [[ $file == /* && -f $file ]]; then give "$file"; fi
done
if [ -t 0 ]; then : >"$root/tvlmc/in"; else cat >"$root/tvlmc/in"; fi

cat >"$root/init" <<END
#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
cd $(quoted "$PWD")
touch /tvlmc/before
sleep 1
$line </tvlmc/in >/tvlmc/out 2>/tvlmc/err
echo \$? >/tvlmc/status
find . -type f -newer /tvlmc/before >/tvlmc/made
mkdir /back /back/tvlmc
while read -r made; do mkdir -p "/back/\$(dirname "\$made")" && cp "\$made" "/back/\$made"; done </tvlmc/made
cp /tvlmc/out /tvlmc/err /tvlmc/status /back/tvlmc/
tar -c -f - -C /back . | gzip -1 >/tvlmc/back
{ echo; echo BEGIN; base64 /tvlmc/back; echo END; } | port
poweroff -f
END
chmod +x "$root/init"
(cd "$root" && find . | cpio -o -H newc --quiet | gzip -1) >"$work/iso/boot/initrd"
cp "$folder/vmlinuz" "$work/iso/boot/"
cp /usr/lib/ISOLINUX/isolinux.bin /usr/lib/syslinux/modules/bios/ldlinux.c32 "$work/iso/"
cat >"$work/iso/isolinux.cfg" <<'END'
default linux
label linux
kernel /boot/vmlinuz
append initrd=/boot/initrd nokaslr mitigations=off quiet
END
xorriso -as mkisofs -quiet -o "$work/disk.iso" -b isolinux.bin -c boot.cat -no-emul-boot -boot-load-size 4 \
  -boot-info-table "$work/iso" 2>"$work/iso.log" || { cat "$work/iso.log" >&2; exit 125; }

cat >"$work/bochsrc" <<END
cpu: model=corei7_skylake_x, count=1, ips=100000000, reset_on_triple_fault=0, add_features="avx512vnni,avx_vnni"
memory: guest=1024, host=1024
romimage: file=/usr/share/bochs/BIOS-bochs-latest
vgaromimage: file=/usr/share/bochs/VGABIOS-lgpl-latest
ata0: enabled=1
ata0-master: type=cdrom, path=$work/disk.iso, status=inserted
boot: cdrom
port_e9_hack: enabled=1
display_library: nogui
log: $work/bochs.log
panic: action=fatal
END
# It ends by switching itself off, which Bochs calls a panic.
(cd "$work" && timeout "${TVLMC_EMULATOR_SECONDS:-3600}" "$folder/bochs" -q -f bochsrc </dev/null >console 2>&1) || true
sed -n '/^BEGIN$/,/^END$/p' "$work/console" | grep -v '^BEGIN$\|^END$' | base64 -d >"$work/back" 2>/dev/null || true
mkdir "$work/back.d"
if ! tar -C "$work/back.d" -xzf "$work/back" 2>/dev/null || [ ! -f "$work/back.d/tvlmc/status" ]; then
  echo "run.sh: the emulated machine did not end by itself; its last lines:" >&2
  tail -5 "$work/bochs.log" >&2
  exit 125
fi
cat "$work/back.d/tvlmc/out"
cat "$work/back.d/tvlmc/err" >&2
status=$(cat "$work/back.d/tvlmc/status")
rm -r "$work/back.d/tvlmc"
cp -r "$work/back.d/." "$PWD/"
exit "$status"
