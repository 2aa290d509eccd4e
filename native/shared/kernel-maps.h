/*
 * The maps of the kernel engine: what its BPF programs (bpf/kernel-path.bpf.c) and tartand share. Numbers and addresses
 * are in host order. A word without another writer in its comment is written by tartand.
 */
#ifndef TARTAN_KERNEL_MAPS_H
#define TARTAN_KERNEL_MAPS_H

#include "counters.h"
#include <stddef.h>
#include <stdint.h>

/* X(name, type, bytes of a key, bytes of a value, entries, flags), in the order of enum kernel_map. */
#define KERNEL_MAPS(X) \
	X(config, BPF_MAP_TYPE_ARRAY, 4, sizeof(struct kernel_config), 1, BPF_F_MMAPABLE) \
	X(peers, BPF_MAP_TYPE_ARRAY, 4, sizeof(struct kernel_peer), KERNEL_PEERS_MAX, BPF_F_MMAPABLE) \
	X(prefixes, BPF_MAP_TYPE_HASH, sizeof(struct kernel_prefix), 4, KERNEL_PEERS_MAX, BPF_F_NO_PREALLOC) \
	X(endpoints, BPF_MAP_TYPE_HASH, 4, sizeof(struct kernel_endpoint), KERNEL_PEERS_MAX, BPF_F_NO_PREALLOC) \
	X(traffic, BPF_MAP_TYPE_PERCPU_HASH, 4, sizeof(struct kernel_traffic), KERNEL_PEERS_MAX, BPF_F_NO_PREALLOC) \
	X(counters, BPF_MAP_TYPE_PERCPU_ARRAY, 4, sizeof(struct kernel_counters), 1, 0) \
	X(flows, BPF_MAP_TYPE_LRU_HASH, sizeof(struct kernel_flow), 8, KERNEL_FLOWS_MAX, 0)

enum kernel_map {
#define KERNEL_MAP_ENUM(name, type, key, value, entries, flags) kernel_map_##name,
	KERNEL_MAPS(KERNEL_MAP_ENUM)
#undef KERNEL_MAP_ENUM
	KERNEL_MAP_COUNT
};

#define KERNEL_PEERS_MAX 65536u
#define KERNEL_LENGTHS_MAX 4u
/* Flows of pairs that are about to change their engine. One that was forgotten may be reordered once. */
#define KERNEL_FLOWS_MAX 16384u
/* UDP port of both ends of a probe, inside the tunnel. */
#define KERNEL_PROBE_PORT 8285u
/* Bytes of the outer IPv4, UDP and VXLAN-GPE headers. */
#define KERNEL_OVERHEAD4 36u

/*
 * What passed between this host and one peer, on one processor. The programs write it. A packet is what crosses the
 * underlay in a datagram of its own, bytes are those of inner packets, times are CLOCK_BOOTTIME nanoseconds, 0: never.
 */
struct kernel_traffic {
	uint64_t sent_packets;
	uint64_t sent_bytes;
	uint64_t received_packets;
	uint64_t received_bytes;
	uint64_t sent_ns;     /* when the last data packet was sent */
	uint64_t heard_ns;    /* when the last packet or probe came */
	uint64_t answered_ns; /* when the last answer to a probe came, */
	uint64_t answered_opaque;   /* with this opaque */
	uint32_t answered_sequence; /* and this sequence */
	uint32_t reserved;
};

struct kernel_config {
	uint32_t network;
	uint32_t network_mask;
	uint32_t subnet;
	uint32_t subnet_mask;
	uint32_t local; /* outer address: what peers send to */
	uint32_t vni;
	uint32_t tun;   /* device numbers: of tartan0, */
	uint32_t link;  /* and of tartan-k */
	uint32_t flags; /* KERNEL_NO_SOURCE_CHECK, KERNEL_NO_DESTINATION_CHECK */
	uint32_t fence; /* 1: the subnet is lost, drop both directions */
	uint64_t forward_until_ns; /* CLOCK_BOOTTIME; past it drop both directions. 0 before the first word of tartand */
	uint32_t lengths[KERNEL_LENGTHS_MAX]; /* of the prefixes; 0 ends them */
	struct kernel_traffic no_traffic;     /* zeros, which have no room on the stack of a program */
};

/* Bits of kernel_config.flags, those of layout.h. */
#define KERNEL_NO_SOURCE_CHECK 1u
#define KERNEL_NO_DESTINATION_CHECK 2u

/* A slot of zeros refuses. */
enum kernel_state {
	KERNEL_REFUSE, /* of no peer, or of one from which nothing may come this way */
	KERNEL_USER,   /* packets to it go to the user-space engine; what comes from it is taken */
	KERNEL_KERNEL, /* packets to it are taken, too */
};
#define KERNEL_STATE_MASK 0xffu
/*
 * Beside a state, so that a pair keeps the order of its flows when it changes its engine. While it records, `outbound`
 * notes the flows that send. While it moves, which is KERNEL_MOVE_NS long, a noted flow goes on by the way of the state
 * before until it has paused for KERNEL_PAUSE_NS, in which what is under way there arrives; new flows follow the state.
 */
#define KERNEL_RECORDS 0x100u
#define KERNEL_MOVES 0x200u
#define KERNEL_MOVE_NS 2000000000u
#define KERNEL_PAUSE_NS 20000000u

/* How many probes of one peer are answered, by the rule of datapath/answer-limit.h. Its writer is `inbound`. */
struct kernel_answers {
	uint32_t second;
	uint32_t questions; /* of this second */
	uint32_t before;    /* questions of the second before */
	uint32_t answers;   /* of this second */
};

/* The peer of a number. */
struct kernel_peer {
	uint32_t state; /* enum kernel_state, with KERNEL_RECORDS or KERNEL_MOVES */
	uint32_t remote; /* outer addresses: of the peer, */
	uint32_t local;  /* and of this host towards it */
	uint32_t mtu;    /* bytes of the longest outer packet by the MTU of the route; 0: no limit known */
	uint32_t identity[4]; /* as in struct peer of layout.h */
	struct kernel_answers answers;
	uint64_t moved_ns; /* CLOCK_BOOTTIME; since when it moves */
	uint32_t reserved[2];
};

/*
 * The key of a flow; as in addon/steering.c it has the ports of TCP only. The value is when it last sent by the way of the
 * former state, CLOCK_BOOTTIME nanoseconds; outbound writes it.
 */
struct kernel_flow {
	uint32_t source;
	uint32_t destination;
	uint32_t ports; /* as in the packet */
	uint32_t protocol;
};

/* The key of a peer's prefix. The value is the number of the peer. */
struct kernel_prefix {
	uint32_t address; /* host bits zero */
	uint32_t length;  /* 1..32 */
};

/* The value of an outer address: one of the peers that have it, and how many have it. */
struct kernel_endpoint {
	uint32_t peer;
	uint32_t peers;
};

/* Counters of one processor, by enum counter. The programs write them. */
struct kernel_counters {
	uint64_t of[COUNTER_COUNT];
	struct kernel_traffic unnoted; /* of peers for whose traffic there was no memory; nobody reads it */
	uint64_t hand[32]; /* what a program keeps of one packet: struct hand of kernel-helpers.h */
};

_Static_assert(offsetof(struct kernel_config, no_traffic) == 64 && sizeof(struct kernel_peer) == 64, "another cache line");

#endif
