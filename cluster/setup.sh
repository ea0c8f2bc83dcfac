#!/usr/bin/env bash
# Installs the Debian 12 packages that Bireme needs, and only those that are missing: a second run takes a moment
# and no network. README.md gives the reason for each package.
#
#     cluster/setup.sh [build] [test] [tidy] [quickstart]      (default: build)
set -euo pipefail

build=(g++ cmake ninja-build pkg-config
       libopenmpi-dev openmpi-bin libhdf5-dev libdnnl-dev libhwy-dev
       libboost-program-options-dev libboost-context-dev libtomlplusplus-dev nlohmann-json3-dev libspdlog-dev
       libturbojpeg0-dev libpng-dev zlib1g-dev libxxhash-dev libsentencepiece-dev libicu-dev libgtest-dev gnuplot-nox)
test=(clang-format-14 git)
tidy=(clang-tidy-19 libomp-19-dev)  # and the omp.h that clang reads
quickstart=(dataset-fashion-mnist)

wanted=()
for group in "${@:-build}"; do
  case $group in
    build) wanted+=("${build[@]}") ;;
    test) wanted+=("${test[@]}") ;;
    tidy) wanted+=("${tidy[@]}") ;;
    quickstart) wanted+=("${quickstart[@]}") ;;
    *) echo "setup.sh: unknown group $group: use build, test, tidy or quickstart" >&2; exit 2 ;;
  esac
done

missing=()
for package in "${wanted[@]}"; do
  state=$(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null || true)
  [ "$state" = installed ] || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0

as_root=()
if [ "$(id -u)" -ne 0 ]; then
  command -v sudo >/dev/null || { echo "setup.sh: these packages are missing; install them as root:
    apt-get install ${missing[*]}" >&2; exit 1; }
  as_root=(sudo)
fi
echo "Installing ${missing[*]}"
"${as_root[@]}" apt-get update -q
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}"
