/*
 * Switches offloads of a link as ethtool(8) -K does, which need not be installed. The words name features by pattern
 * (fnmatch(3)) and must each match one at least; what the driver refuses is an error.
 *
 *   offload DEVICE PATTERN=on|off...
 */
#include <errno.h>
#include <fnmatch.h>
#include <linux/ethtool.h>
#include <linux/if.h>
#include <linux/sockios.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#define FEATURES_MAX 256
#define WORDS_MAX (FEATURES_MAX / 32)

struct link {
	int fd;
	struct ifreq request;
};

static int ask(struct link *l, void *command)
{
	l->request.ifr_data = command;
	return ioctl(l->fd, SIOCETHTOOL, &l->request);
}

static uint32_t feature_count(struct link *l)
{
	struct {
		struct ethtool_sset_info info;
		uint32_t count;
	} sets = { .info = { .cmd = ETHTOOL_GSSET_INFO, .sset_mask = 1ull << ETH_SS_FEATURES } };

	return ask(l, &sets) < 0 || sets.count > FEATURES_MAX ? 0 : sets.count;
}

static struct ethtool_gstrings *feature_names(struct link *l, uint32_t count)
{
	struct ethtool_gstrings *names = calloc(1, sizeof *names + FEATURES_MAX * ETH_GSTRING_LEN);

	if (!names)
		return NULL;
	names->cmd = ETHTOOL_GSTRINGS;
	names->string_set = ETH_SS_FEATURES;
	names->len = count;
	return ask(l, names) < 0 ? NULL : names;
}

/* Sets all features that one word names and nothing else; returns how many they are, or -1. */
static int set(struct link *l, const struct ethtool_gstrings *names, const char *pattern, bool on)
{
	struct {
		struct ethtool_sfeatures head;
		struct ethtool_set_features_block block[WORDS_MAX];
	} features = { .head = { .cmd = ETHTOOL_SFEATURES, .size = (names->len + 31) / 32 } };
	int matched = 0;

	for (uint32_t i = 0; i < names->len; i++) {
		const char *name = (const char *)names->data + i * ETH_GSTRING_LEN;

		if (fnmatch(pattern, name, 0) != 0)
			continue;
		features.block[i / 32].valid |= 1u << i % 32;
		if (on)
			features.block[i / 32].requested |= 1u << i % 32;
		matched++;
	}
	return ask(l, &features) < 0 ? -1 : matched;
}

int main(int argc, char **argv)
{
	struct link l = { .fd = socket(AF_INET, SOCK_DGRAM, 0) };
	struct ethtool_gstrings *names;

	if (argc < 3 || l.fd < 0) {
		fputs("usage: offload DEVICE PATTERN=on|off...\n", stderr);
		return 64;
	}
	snprintf(l.request.ifr_name, sizeof l.request.ifr_name, "%s", argv[1]);
	names = feature_names(&l, feature_count(&l));
	if (!names) {
		perror("offload: names of features");
		return 1;
	}
	for (int i = 2; i < argc; i++) {
		char *value = strchr(argv[i], '=');

		if (value)
			*value++ = '\0';
		int matched = value ? set(&l, names, argv[i], strcmp(value, "on") == 0) : 0;
		if (matched > 0)
			continue;
		fprintf(stderr, "offload: %s %s: %s\n", argv[1], argv[i], matched < 0 ? strerror(errno) : "no such feature");
		return 1;
	}
	return 0;
}
