/*
 * The BPF programs of the kernel engine and their maps, as tartand holds them: loaded, filled, read, tried and closed
 * together. A descriptor of a program in a filter keeps its maps alive after they are closed here.
 */
#ifndef TARTAN_ADDON_KERNEL_MAPS_H
#define TARTAN_ADDON_KERNEL_MAPS_H

#include "../shared/kernel-maps.h"
#include "bpf.h"

#include <stdbool.h>

struct kernel_path {
	int maps[KERNEL_MAP_COUNT];
	int outbound; /* programs */
	int inbound;
	int trial[2]; /* the same for BPF_PROG_TEST_RUN, -1 before the first use: of outbound, of inbound */
	bool sees_missing_link; /* outbound finds out that tartan-k is gone (Linux 5.12) */
	uint32_t processors;
	volatile struct kernel_config *config;
	volatile struct kernel_peer *peers; /* KERNEL_PEERS_MAX */
};

/* Why a call failed. */
struct kernel_failure {
	const char *step;
	int err;
	char log[1024]; /* the end of what the verifier said; empty for other steps */
};

/* False after a failure; nothing stays open then. */
bool kernel_path_open(struct kernel_path *path, struct kernel_failure *failure);
/* May be called again. */
void kernel_path_close(struct kernel_path *path);

/*
 * Whether the address from which a tunnel packet leaves is that of its peer's slot (Linux 6.0). Else it is the one that
 * the route has. False after a failure too.
 */
bool kernel_path_chooses_source(struct kernel_path *path, bool *chooses, struct kernel_failure *failure);

/* Return 0 or an errno. The number is below KERNEL_PEERS_MAX. */
int kernel_path_set_peer(struct kernel_path *path, uint32_t number, const struct kernel_peer *peer);
/* `outbound` notes from now on which flows send to the peer, so that the next change of its state keeps their order. */
void kernel_path_record(struct kernel_path *path, uint32_t number);
void kernel_path_set_state(struct kernel_path *path, uint32_t number, enum kernel_state state);
int kernel_path_clear_peer(struct kernel_path *path, uint32_t number);
int kernel_path_set_prefix(struct kernel_path *path, struct kernel_prefix prefix, uint32_t number);
int kernel_path_remove_prefix(struct kernel_path *path, struct kernel_prefix prefix);

/* What all processors have counted. Returns 0 or an errno. */
int kernel_path_counters(const struct kernel_path *path, struct kernel_counters *sum);
/* Calls `row` for each peer with traffic until it returns false. Returns 0 or an errno. */
int kernel_path_traffic(const struct kernel_path *path,
			bool (*row)(void *context, uint32_t number, const struct kernel_traffic *sum), void *context);

enum kernel_direction { KERNEL_OUTBOUND, KERNEL_INBOUND };

/* How a packet comes out of its tunnel: outer addresses in host order. */
struct kernel_key {
	uint32_t remote;
	uint32_t local;
	uint32_t vni;
};

/*
 * Runs a program on trial->bytes (an Ethernet header, then the packet). It counts as for a real packet. `key` is for
 * KERNEL_INBOUND, and may be NULL: the packet came from no tunnel. EPROTONOSUPPORT: the keys of this kernel have no local
 * address (before Linux 6.0), so that none can be made for a trial.
 */
bool kernel_path_try(struct kernel_path *path, enum kernel_direction direction, struct bpf_trial *trial,
		     const struct kernel_key *key, struct kernel_failure *failure);

#endif
