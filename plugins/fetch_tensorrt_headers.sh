#!/bin/sh
# Put NVIDIA's TensorRT headers into a folder: fetch_tensorrt_headers.sh TARGET_DIR
#
# NVIDIA's Python packages ship no headers. The pure-Python wheel kernel-lens (MIT) carries those of
# TensorRT 10.14.1, which are Apache-2.0; nothing else of it is used or installed. A machine with
# the TensorRT SDK needs none of this: CMake looks in TensorRT_ROOT and the system first.
set -eu

package=kernel-lens
version=2.0.1
sha256=07cc714e8b5e7f34b672f7c7fad93febe7c747be5837ba276b1527370134ffe0
folder=kernel_lens/include/tensorrt
python=${PYTHON:-python3}

fail() {
  echo "fetch_tensorrt_headers: $1" >&2
  echo "Instead, give the folder of NvInferRuntime.h in NVIDIA's TensorRT SDK:" >&2
  echo "  XLSTM_TRT_INCLUDE=/path/to/include" >&2
  exit 1
}

[ $# -eq 1 ] || { echo "usage: $0 TARGET_DIR" >&2; exit 2; }
target=$1
stamp="$sha256  $package $version"
if [ -f "$target/NvInferRuntime.h" ] && [ "$(cat "$target/SOURCE" 2>/dev/null)" = "$stamp" ]; then
  echo "TensorRT headers: already in $target"
  exit 0
fi

"$python" -m pip --version >/dev/null 2>&1 || fail "$python has no pip"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
echo "Fetching $package $version for its TensorRT 10.14.1 headers (235 kB)"
echo "  sha256 $sha256"
echo "$package==$version --hash=sha256:$sha256" > "$scratch/requirements.txt"
"$python" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: \
  --require-hashes --requirement "$scratch/requirements.txt" --dest "$scratch" ||
  fail "$package $version could not be fetched with that hash"
"$python" -m zipfile -e "$scratch"/*.whl "$scratch/unpacked" || fail "the wheel is damaged"
[ -f "$scratch/unpacked/$folder/NvInferRuntime.h" ] || fail "$package has no NvInferRuntime.h"
mkdir -p "$target"
cp "$scratch/unpacked/$folder"/*.h "$target/"
echo "$stamp" > "$target/SOURCE"
echo "TensorRT headers: $target"
