#!/usr/bin/env bash
# Installs the Debian packages that edgepack builds and measures with, where we may; else says what is missing.
# With the word `test` also what only the tests need: they compile, package and run the Android app without Gradle. A
# package is known by a program of its, or by the path of a file.
set -euo pipefail
declare -A package=([python3.11]=python3.11-venv [gcc]=gcc [node]=nodejs [npm]=npm [chromium]=chromium [adb]=adb
  [javac]=openjdk-17-jdk-headless)
[[ ${1:-} != test ]] || package+=([/usr/share/java/junit4.jar]=junit4
  [aapt2]=aapt [apksigner]=apksigner [enjarify]=enjarify
  [/usr/share/android-framework-res/framework-res.apk]=android-framework-res)
missing=()
for program in "${!package[@]}"; do
  command -v "$program" >/dev/null || [[ $program == /* && -e $program ]] || missing+=("${package[$program]}")
done
((${#missing[@]})) || exit 0
if [[ $(id -u) != 0 ]]; then
  echo "Missing: ${missing[*]}. As root: apt-get install -y ${missing[*]} (edgepack doctor says what each disables)." >&2
  exit 0
fi
echo "Installing ${missing[*]}" >&2
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
