#!/usr/bin/env bash
# Installs an emulated x86-64 processor for levels that this machine's own lacks (AVX-512, AVX512-VNNI, AVX-VNNI), for
# tests of bits, never of speed:
#   emulator in $TVLMC_CACHE [${XDG_CACHE_HOME:-$HOME/.cache}/tvlmc]
# Running it again does nothing when the folder is complete. About four minutes, 80 MB; Debian, as root.
#
# Bochs interprets every instruction of a whole machine, so a small Linux boots in it (20 s). QEMU's user mode has no
# AVX-512. Debian's own build has a debugger inside and is several times slower, and version 2.7 cannot add features to
# a processor; so the source of the version below is taken from the same mirror and built.
set -euo pipefail

cache=${TVLMC_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/tvlmc}
folder=$cache/emulator
stamp=$folder/complete-1
version=3.0
digest=78f6c73d4a6472d5130a87ab9dc306d02c7c71ed8e25b3a8ef642e2a7acd282b
here=$(cd "$(dirname "$0")" && pwd)

[ -f "$stamp" ] && { echo "emulator: there"; exit 0; }
command -v apt-get >/dev/null || { echo "emulator: needs Debian's packages (apt-get)" >&2; exit 1; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$folder"
export DEBIAN_FRONTEND=noninteractive
packages=(bochsbios vgabios isolinux syslinux-common xorriso busybox-static cpio g++ make xz-utils curl python3)
apt-get install -y -qq --no-install-recommends "${packages[@]}" >"$work/apt.log" 2>&1 \
  || { apt-get update -qq && apt-get install -y -qq --no-install-recommends "${packages[@]}"; } >"$work/apt.log" 2>&1 \
  || { tail -5 "$work/apt.log" >&2; exit 1; }

mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Component: main' | grep -v security | head -1)
curl -fsS -o "$work/bochs.tar.xz" "${mirror%/}/pool/main/b/bochs/bochs_$version+dfsg.orig.tar.xz"
echo "$digest  $work/bochs.tar.xz" | sha256sum --check --quiet
tar -C "$work" -xf "$work/bochs.tar.xz"
# The newest model in which this Linux boots does not report features that are added to it.
python3 - "$work/bochs-$version/cpu/cpudb/intel/corei7_skylake-x.cc" <<'END'
import sys
path = sys.argv[1]
text = open(path).read()
at = text.index("void corei7_skylake_x_t::get_std_cpuid_leaf_7")
head, tail = text[:at], text[at:]
for old, new in [
    ("leaf->eax = 0; /*", "leaf->eax = 1; /*"),
    ("leaf->ecx = 0;", "leaf->ecx = get_std_cpuid_leaf_7_ecx();"),
    ("default:\n    leaf->eax = 0;", "default:\n    leaf->eax = subfunction == 1 ? get_std_cpuid_leaf_7_subleaf_1_eax() : 0;"),
]:
    assert old in tail, old
    tail = tail.replace(old, new, 1)
open(path, "w").write(head + tail)
END
echo "emulator: building Bochs $version (three minutes)"
(
  cd "$work/bochs-$version"
  # With its own optimizations, without the debugger.
  CXXFLAGS="-O2" CFLAGS="-O2" ./configure --enable-x86-64 --enable-cpu-level=6 --enable-avx --enable-evex \
    --enable-all-optimizations --disable-debugger --disable-plugins --disable-docbook --disable-usb \
    --disable-large-ramfile --with-nogui
  make -j"$(nproc)"
) >"$work/build.log" 2>&1 || { tail -20 "$work/build.log" >&2; exit 1; }
strip -o "$folder/bochs" "$work/bochs-$version/bochs"

# The smallest of Debian's kernels, unpacked and not installed.
kernel=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/.*Depends: \(linux-image[^ ]*\).*/\1/p' | head -1)
(cd "$work" && apt-get download -qq "$kernel" 2>/dev/null && dpkg-deb -x "$kernel"_*.deb kernel)
cp "$work"/kernel/boot/vmlinuz-* "$folder/vmlinuz"
rustc --edition 2024 -O -C target-feature=+crt-static --target x86_64-unknown-linux-gnu -o "$folder/port" "$here/port.rs"

touch "$stamp"
echo "emulator: installed"
