#!/usr/bin/env bash
# The kernels' tests on aarch64, under qemu-user: `make test-aarch64`. As root on Debian 12 or its like, whose packages give
# the emulator and a Python of that machine (apt-get is told of the architecture). Left out is what asks onnxruntime: its wheel
# crashes under qemu 7.2. Everything lies in build/aarch64 and is made once.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$PWD/build/aarch64
python=$PWD/.venv/bin/python

if [ ! -e "$work/ready" ]; then
  mkdir -p "$work/packages" "$work/root"
  dpkg --add-architecture arm64
  apt-get update -qq
  apt-get install -qq -y --no-install-recommends qemu-user-static
  packages="python3.11 python3.11-minimal libpython3.11-minimal libpython3.11-stdlib libc6 libgcc-s1 libstdc++6 libcrypt1 zlib1g
    libexpat1 libssl3 libffi8 libbz2-1.0 liblzma5 libsqlite3-0 libuuid1 libncursesw6 libtinfo6 libreadline8 libdb5.3"
  # shellcheck disable=SC2086
  (cd "$work/packages" && apt-get download -qq $(printf '%s:arm64 ' $packages))
  for package in "$work"/packages/*.deb; do dpkg -x "$package" "$work/root"; done
  .venv/bin/uv pip install --quiet --python-platform aarch64-manylinux_2_28 --python-version 3.11 --only-binary :all: \
    --target "$work/site" -c requirements/dev.txt numpy orjson hypothesis onnx pytest
  touch "$work/ready"
fi

rm -rf "$work/tree"
mkdir "$work/tree"
cp -r saker tests pyproject.toml "$work/tree"
cp -r bench deploy engine export training "$work/tree/saker" # as they are installed
rm -f "$work"/tree/saker/engine/kernels/*.so
cd "$work/tree"
"$python" saker/engine/kernels/build.py --target aarch64
PYTHONPATH=$work/site:. qemu-aarch64-static -L "$work/root" "$work/root/usr/bin/python3.11" -m pytest --noconftest \
  -p tests.engine.conftest -p no:cacheprovider -k "not onnxruntime" \
  tests/engine/records \
  tests/engine/kernels/test_any_ensemble.py tests/engine/kernels/test_tree_kernel.py tests/engine/kernels/test_protobuf.py
