#!/usr/bin/env bash
# Installs the Debian packages that edgepack builds and measures with, where we may; else says what is missing.
set -euo pipefail
declare -A package=([python3.11]=python3.11-venv [gcc]=gcc [node]=nodejs [npm]=npm [chromium]=chromium [adb]=adb)
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
