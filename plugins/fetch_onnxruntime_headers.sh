#!/bin/sh
# Put ONNX Runtime's C headers into a folder: fetch_onnxruntime_headers.sh TARGET_DIR
#
# No Python package ships them; Debian trixie's libonnxruntime-dev does. The package comes from the
# Debian archive this machine already uses, through a private apt configuration: the system's
# package lists and installed packages stay as they are, and root is not needed. Only headers are
# taken (the compiled library is not), so one architecture's package serves all.
set -eu

package=libonnxruntime-dev
suite=trixie
version=1.21.0+dfsg-1
architecture=amd64
sha256=14f7d959d5deacbcf1504830d4189f91fc67382b399ed9ae9d3aa9c4050ced08

fail() {
  echo "fetch_onnxruntime_headers: $1" >&2
  echo "Instead, give the headers of an ONNX Runtime release archive (its folder include):" >&2
  echo "  XLSTM_ORT_INCLUDE=/path/to/include" >&2
  exit 1
}

[ $# -eq 1 ] || { echo "usage: $0 TARGET_DIR" >&2; exit 2; }
target=$1
stamp="$sha256  ${package}_${version}_${architecture}.deb"
if [ -f "$target/onnxruntime_c_api.h" ] && [ "$(cat "$target/SOURCE" 2>/dev/null)" = "$stamp" ]; then
  echo "ONNX Runtime headers: already in $target"
  exit 0
fi

for tool in apt-get dpkg-deb sha256sum; do
  command -v "$tool" >/dev/null || fail "this machine has no $tool (the fetch needs a Debian system)"
done
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
mkdir -p "$scratch/lists/partial" "$scratch/cache/archives/partial" "$scratch/headers"

# The main archive of this machine with its suite renamed; the security archive and backports,
# whose suites have a dash in their names, are left out.
sources=/etc/apt/sources.list.d/debian.sources
if [ -f "$sources" ]; then
  apt_sources="$scratch/$suite.sources"
  awk -v RS= -v suite="$suite" '
    match($0, /(^|\n)Suites:[^\n]*/) {
      suites = substr($0, RSTART, RLENGTH)
      sub(/.*Suites:/, "", suites)
      plain = 0
      count = split(suites, names, " ")
      for (i = 1; i <= count; ++i) if (names[i] !~ /[-\/]/) plain = 1
      if (!plain) next
      gsub(/(^|\n)#[^\n]*/, "")
      sub(/Suites:[^\n]*/, "Suites: " suite)
      sub(/Components:[^\n]*/, "Components: main")
      print $0 "\n"
    }' "$sources" > "$apt_sources"
elif [ -f /etc/apt/sources.list ]; then
  apt_sources="$scratch/$suite.list"
  sed -nE "s/^(deb[[:space:]]+(\[[^]]*\][[:space:]]+)?[^[:space:]]+)[[:space:]]+[a-z]+[[:space:]].*/\1 $suite main/p" \
    /etc/apt/sources.list > "$apt_sources"
else
  fail "this machine has no Debian package sources (/etc/apt/sources.list.d/debian.sources)"
fi
[ -s "$apt_sources" ] || fail "no main archive found among this machine's Debian package sources"

apt() {
  apt-get -qq -o Dir::Etc::sourcelist="$apt_sources" -o Dir::Etc::sourceparts=- \
    -o Dir::State::lists="$scratch/lists" -o Dir::Cache="$scratch/cache" \
    -o APT::Architecture="$architecture" -o APT::Architectures="$architecture" \
    -o APT::Sandbox::User="$(id -un)" -o Debug::NoLocking=1 -o Acquire::Languages=none "$@"
}

echo "Fetching $package $version ($architecture) of Debian $suite, ONNX Runtime's C headers (85 kB)"
echo "  sha256 $sha256"
apt update || fail "the package list of Debian $suite could not be fetched"
(cd "$scratch" && apt download "$package=$version") ||
  fail "$package $version could not be fetched; Debian $suite may have moved on"
deb=$(find "$scratch" -maxdepth 1 -name '*.deb')
found=$(sha256sum "$deb" | cut -d ' ' -f 1)
[ "$found" = "$sha256" ] || fail "$package has sha256 $found, expected $sha256"

dpkg-deb --fsys-tarfile "$deb" | tar -x -C "$scratch/headers" --strip-components=4 \
  ./usr/include/onnxruntime || fail "the package could not be unpacked"
[ -f "$scratch/headers/onnxruntime_c_api.h" ] || fail "$package has no onnxruntime_c_api.h"
mkdir -p "$target"
cp -R "$scratch/headers/." "$target/"
echo "$stamp" > "$target/SOURCE"
echo "ONNX Runtime headers: $target"
