#!/usr/bin/env bash
# Installs the Debian packages that edgepack builds and measures with, where we may; else says what is missing.
# With the word `test` also the JDK, which only the tests need: they hold the Android app's Java to the library.
set -euo pipefail
declare -A package=([python3.11]=python3.11-venv [gcc]=gcc [node]=nodejs [npm]=npm [chromium]=chromium [adb]=adb)
[[ ${1:-} != test ]] || package[javac]=openjdk-17-jdk-headless
missing=()
for program in "${!package[@]}"; do
  command -v "$program" >/dev/null || missing+=("${package[$program]}")
done
((${#missing[@]})) || exit 0
if [[ $(id -u) != 0 ]]; then
  echo "Missing: ${missing[*]}. As root: apt-get install -y ${missing[*]} (edgepack doctor says what each disables)." >&2
  exit 0
fi
echo "Installing ${missing[*]}" >&2
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
