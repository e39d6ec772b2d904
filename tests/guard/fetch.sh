# shellcheck shell=bash
# Packages that are unpacked and not installed: kernels below build/guard/kernels/<release>, an emulator below
# build/guard/qemu. Read by setup.sh and debug_kernel.sh, which run in the root of the checkout.
# What Debian 12 itself does not offer comes from Debian's other suites through a private apt configuration in
# build/guard/apt: the host's own stays as it is.

kernels=$PWD/build/guard/kernels
private=$PWD/build/guard/apt
updated=

say() { printf 'guard setup: %s\n' "$*"; }
die() {
    printf 'mpsr: guard setup: %s\n' "$1" >&2
    if [ $# -gt 1 ]; then printf '  %s\n' "$2" >&2; fi
    exit 1
}

# The host's package lists, once, where root asks.
update() {
    if [ -n "$updated" ]; then return; fi
    updated=yes
    if [ "$(id -u)" = 0 ]; then
        say "apt-get update"
        apt-get update -q -o Acquire::Retries=3 >/dev/null || die "apt-get update failed" "is the network there?"
    fi
}

# Where this host has Debian from; $1: the archive, debian or debian-security, which lies beside the first.
mirror() {
    local main
    # shellcheck disable=SC2016  # expanded by apt
    main=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -m 1 -E '/debian/?$' || true)
    [ -n "$main" ] || die "apt has no source of Debian" "a line such as: deb MIRROR/debian bookworm main"
    printf '%s/%s' "${main%/debian*}" "$1"
}

# From here on apt asks one other suite: $1 archive (debian, debian-security), $2 suite. To be called in a subshell.
only_suite() {
    local key=/usr/share/keyrings/debian-archive-keyring.gpg place=$private/$2
    mkdir -p "$place"/{lists,cache/archives}/partial
    printf 'deb [signed-by=%s] %s %s main\n' "$key" "$(mirror "$1")" "$2" >"$place/sources"
    : >"$place/status"
    printf '%s;\n' "Dir::State \"$place\"" "Dir::State::status \"$place/status\"" "Dir::State::lists \"$place/lists\"" \
        "Dir::Cache \"$place/cache\"" "Dir::Etc::sourcelist \"$place/sources\"" 'Dir::Etc::sourceparts "-"' \
        'APT::Sandbox::User "root"' 'Acquire::Languages "none"' >"$place/conf"
    export APT_CONFIG=$place/conf
    updated=yes
    apt-get update -q -o Acquire::Retries=3 >/dev/null 2>&1 || die "no package lists of Debian's $2" "is the network there?"
}

# $1: where to, then packages
unpack() {
    local package into=$1 scratch
    shift
    mkdir -p "$kernels"
    scratch=$(mktemp -d "$kernels/fetch.XXXXXX")
    (cd "$scratch" && apt-get download -q -o Acquire::Retries=3 -o APT::Sandbox::User=root "$@" >/dev/null) ||
        die "apt-get download failed: $*" "is the network there?"
    for package in "$scratch"/*.deb; do dpkg-deb -x "$package" "$into"; done
    rm -rf "$scratch"
}

# The releases of a series for ordinary machines that apt offers, a line each, sorted; $1: headers or image, $2: series
offered() {
    apt-cache search --names-only "^linux-$1-${2//./\\.}\.[0-9][0-9.+a-z-]*-amd64$" |
        sed -n "s/^linux-$1-\([^ ]*\) .*/\1/p" | grep -Ev 'cloud|rt|common' | sort || true
}

# The newest of them, such as 6.1.0-56-amd64; empty when there is none. Debian signs an image some hours after it has
# published the headers: until then the release before counts.
newest() {
    comm -12 <(offered headers "$1") <(offered image "$1") | sort -V | tail -n 1
}

headers() {
    local release=$1 into=$kernels/$1 packages
    mapfile -t packages < <(apt-cache depends "linux-headers-$release" |
        sed -nE 's/^ *Depends: (linux-(headers|kbuild)-.*)/\1/p')
    say "fetching headers of $release"
    unpack "$into" "linux-headers-$release" "${packages[@]}"
    # Debian's tree names its other half by an absolute path, and a compiler that this release may not have.
    sed -i "s,include /usr/src/,include $into/usr/src/," "$into/usr/src/linux-headers-$release/Makefile"
    sed -i -E 's/gcc-[0-9]+$/gcc/' "$into/usr/src/linux-headers-$release/.kernelvariables"
    touch "$into/headers"
}

image() {
    say "fetching the image of $1"
    unpack "$kernels/$1" "linux-image-$1"
    rm -rf "$kernels/$1"/lib/modules # hundreds of megabytes that nothing loads
    touch "$kernels/$1/image"
}

# $1: series, $2: yes when its image is wanted
series() {
    local release
    # Nothing is asked of apt when what is wanted has been unpacked before.
    for release in "$kernels/$1".*; do
        case $release in *-debug) continue ;; esac
        if [ -e "$release/headers" ] && { [ "$2" = no ] || [ -e "$release/image" ]; }; then return; fi
    done
    release=$(newest "$1")
    if [ -z "$release" ]; then
        update
        release=$(newest "$1")
    fi
    if [ -z "$release" ]; then
        say "apt offers no kernel $1: left out"
        return
    fi
    [ -e "$kernels/$release/headers" ] || headers "$release"
    [ "$2" = no ] || [ -e "$kernels/$release/image" ] || image "$release"
}

# A series of Debian 11.
series_of_bullseye() (
    for release in "$kernels/$1".*; do
        if [ -e "$release/headers" ] && [ -e "$release/image" ]; then return; fi
    done
    only_suite debian-security bullseye-security
    series "$1" yes
)

# Debian 12's own emulator (7.2) can stall where one processor runs what another patches; that of its backports did not.
emulator() (
    version=$(qemu-system-x86_64 --version | sed -nE '1s/.*version ([0-9]+)\..*/\1/p')
    if [ "$version" -ge 10 ] || [ -e build/guard/qemu/usr/bin/qemu-system-x86_64 ]; then return; fi
    say "fetching the emulator of bookworm-backports"
    only_suite debian bookworm-backports
    unpack build/guard/qemu.partial qemu-system-x86 qemu-system-common qemu-system-data seabios
    mv build/guard/qemu.partial build/guard/qemu
)

# The kernel's own judge of style; $1: a series whose source Debian has.
checkpatch() {
    local into=$PWD/build/guard/checkpatch scratch
    if [ -e "$into/checkpatch.pl" ]; then return; fi
    say "fetching checkpatch.pl of $1"
    scratch=$(mktemp -d "$kernels/fetch.XXXXXX")
    source_tree "$1" "$scratch" "linux-source-$1/scripts/checkpatch.pl" "linux-source-$1/scripts/spelling.txt" \
        "linux-source-$1/scripts/const_structs.checkpatch"
    mkdir -p "$into"
    mv "$scratch"/scripts/* "$into"
    rm -rf "$scratch"
}

# $1: a series whose source apt offers, $2: the directory to unpack into, then members or options for tar
source_tree() {
    local series=$1 into=$2 scratch
    shift 2
    scratch=$(mktemp -d "$kernels/fetch.XXXXXX")
    (cd "$scratch" && apt-get download -q -o Acquire::Retries=3 -o APT::Sandbox::User=root "linux-source-$series" >/dev/null) ||
        die "apt-get download failed: linux-source-$series" "is the network there?"
    dpkg-deb --fsys-tarfile "$scratch"/*.deb | tar -xO "./usr/src/linux-source-$series.tar.xz" |
        tar -xJ -C "$into" --strip-components=1 "$@"
    rm -rf "$scratch"
}
