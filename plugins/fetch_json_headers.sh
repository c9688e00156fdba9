#!/bin/sh
# Put the headers of nlohmann/json into a folder: fetch_json_headers.sh TARGET_DIR
#
# They come from the Python wheel nlohmann-json (MIT), which is those headers alone; nothing of it is
# installed. A machine with nlohmann-json3-dev needs none of this: CMake looks in the system too.
set -eu

package=nlohmann-json
version=3.12.0
sha256=5f6132720fb25d0d70bf0742f8397b49a540dcc193e7312a914f6aa49f054810
folder=nlohmann_json/include
python=${PYTHON:-python3}

fail() {
  echo "fetch_json_headers: $1" >&2
  echo "Instead, install nlohmann-json3-dev, or give the folder of nlohmann/json.hpp:" >&2
  echo "  XLSTM_JSON_INCLUDE=/path/to/include" >&2
  exit 1
}

[ $# -eq 1 ] || { echo "usage: $0 TARGET_DIR" >&2; exit 2; }
target=$1
stamp="$sha256  $package $version"
if [ -f "$target/nlohmann/json.hpp" ] && [ "$(cat "$target/SOURCE" 2>/dev/null)" = "$stamp" ]; then
  echo "JSON headers: already in $target"
  exit 0
fi

"$python" -m pip --version >/dev/null 2>&1 || fail "$python has no pip"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
echo "Fetching $package $version (175 kB)"
echo "  sha256 $sha256"
echo "$package==$version --hash=sha256:$sha256" > "$scratch/requirements.txt"
"$python" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: \
  --require-hashes --requirement "$scratch/requirements.txt" --dest "$scratch" ||
  fail "$package $version could not be fetched with that hash"
"$python" -m zipfile -e "$scratch"/*.whl "$scratch/unpacked" || fail "the wheel is damaged"
[ -f "$scratch/unpacked/$folder/nlohmann/json.hpp" ] || fail "$package has no nlohmann/json.hpp"
mkdir -p "$target"
cp -R "$scratch/unpacked/$folder/nlohmann" "$target/"
echo "$stamp" > "$target/SOURCE"
echo "JSON headers: $target"
