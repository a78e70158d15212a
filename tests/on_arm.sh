#!/usr/bin/env bash
# Tests as they run on an ARM processor, on a machine that has none: Debian's Python for arm64 and packages built for it,
# which QEMU emulates. What the compiler makes there is NEON code; an emulator says whether it is right, not how fast it is.
#
#   bash tests/on_arm.sh tests/test_native.py -k compiled     with pytest's arguments
#
# Debian or Ubuntu, as root: QEMU is installed, arm64 becomes a second architecture of which packages are unpacked but
# not installed, and the kernel is told to run its programs by QEMU, for those that the tests start.
# WORK: a folder to work in, which is kept, /tmp/charrnn-arm where it is not set. TORCH: what pip is asked for.
set -euo pipefail
cd "$(dirname "$0")/.."
work=${WORK:-/tmp/charrnn-arm}
root=$work/root packages=$work/packages
: "${TORCH:=torch==2.10.0}" # the newest for arm64 that PyPI has without CUDA
mkdir -p "$root" "$work/debs"

if [ ! -x "$root/usr/bin/python3.11" ]; then
    dpkg --add-architecture arm64
    apt-get update -qq
    apt-get install --yes -qq --no-install-recommends qemu-user
    names=(python3.11 python3.11-minimal libpython3.11-minimal libpython3.11-stdlib libc6 zlib1g libexpat1 libgcc-s1)
    names+=(libstdc++6 libssl3 libffi8 libbz2-1.0 liblzma5 libsqlite3-0 libuuid1 libncursesw6 libtinfo6 libreadline8)
    names+=(libgomp1 libcrypt1)
    (cd "$work/debs" && apt-get download -qq "${names[@]/%/:arm64}")
    for deb in "$work"/debs/*.deb; do dpkg -x "$deb" "$root"; done
fi

if [ ! -d "$packages/torch" ]; then
    wheels=(--target "$packages" --python-version 311 --implementation cp --only-binary :all:)
    for abi in cp311 abi3 none; do wheels+=(--abi "$abi"); done
    for glibc in 2014 _2_17 _2_24 _2_27 _2_28; do wheels+=(--platform "manylinux${glibc}_aarch64"); done
    pip install --quiet "${wheels[@]}" "$TORCH" numpy llvmlite tokenizers safetensors filelock tqdm click jinja2 \
        "charset-normalizer>=3.3,<4" pytest pytest-xdist hypothesis scipy
fi

binfmt=/proc/sys/fs/binfmt_misc
[ -e $binfmt/register ] || mount -t binfmt_misc none $binfmt
if [ ! -e $binfmt/qemu-aarch64 ]; then # the first bytes of a program for arm64, and which bits of them matter
    magic='\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00'
    mask='\xff\xff\xff\xff\xff\xff\xff\xfc\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff'
    printf '%s' ":qemu-aarch64:M::$magic:$mask:$(type -P qemu-aarch64):F" > $binfmt/register
fi

export PYTHONPATH=$PWD:$packages QEMU_LD_PREFIX=$root PYTHONDONTWRITEBYTECODE=1 OMP_NUM_THREADS=1
export XDG_CACHE_HOME=$work/cache CHARRNN_HOME=$work/runs
exec "$root/usr/bin/python3.11" -m pytest -p no:cacheprovider -n 0 "$@"
