# Sourced by engines.sh and kernels.sh: packages of any Debian release, by an apt with sources, lists and a cache of its
# own, so that the machine's stay as they are. It checks signatures with Debian's keyring.
keyring=/usr/share/keyrings/debian-archive-keyring.gpg

say() { printf 'setup: %s\n' "$*"; }

# Why packages of other releases cannot be had here; nothing when they can.
apt_lacks() {
	command -v apt-get >/dev/null && [ -e $keyring ] || echo "no apt-get, or no $keyring (package debian-archive-keyring)"
}

# mirror LABEL FALLBACK: where the machine gets what has this label from, if it does.
mirror() {
	local uri
	uri=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' "Label: $1" 2>/dev/null | head -1)
	echo "${uri:-$2}"
}

# prepare_apt DIRECTORY SUITE...: makes DIRECTORY/apt.conf. Hooks of the machine's configuration would change the machine.
prepare_apt() {
	local directory=$1 suite main security
	shift
	main=$(mirror Debian http://deb.debian.org/debian)
	security=$(mirror Debian-Security http://deb.debian.org/debian-security)
	mkdir -p "$directory/lists/partial" "$directory/cache/archives/partial"
	for suite in "$@"; do
		case $suite in
			*-security) echo "deb [signed-by=$keyring] $security $suite main" ;;
			*) echo "deb [signed-by=$keyring] $main $suite main" ;;
		esac
	done >"$directory/sources.list"
	cat >"$directory/apt.conf" <<-END
		#clear APT::Update;
		#clear DPkg::Post-Invoke;
		#clear Acquire::IndexTargets::deb::DEP-11;
		Dir::Etc::SourceList "$PWD/$directory/sources.list";
		Dir::Etc::SourceParts "/dev/null";
		Dir::Etc::Preferences "/dev/null";
		Dir::Etc::PreferencesParts "/dev/null";
		Dir::State::Lists "$PWD/$directory/lists";
		Dir::State::Status "/dev/null";
		Dir::Cache "$PWD/$directory/cache";
		Acquire::AllowInsecureRepositories "false";
		Acquire::Languages "none";
		Acquire::Retries "1";
		Acquire::http::Timeout "15";
		APT::Sandbox::User "root";
	END
}
