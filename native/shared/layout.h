/*
 * The contract of tartand and tartan-datapath: the two shared memories through which they speak, the message by which a
 * data process sends its descriptors to a new tartand, and the command line. Both programs include this header. A
 * change of the layout is a new LAYOUT_VERSION.
 *
 *   routes    is written by tartand only. The data process has a read-only descriptor and maps it read-only.
 *   counters  is written by the data process only, one block per thread. tartand writes its first words when it makes
 *             the memory, and trusts no value in it afterwards.
 *
 * Every word has one writer. Both memories are little-endian files without a name (memfd_create(2)). Their pages are
 * reserved at the start and their size is sealed, so nobody can take away what is mapped. tartand also adopts files in
 * a run directory, as older versions made them.
 */
#ifndef TARTAN_LAYOUT_H
#define TARTAN_LAYOUT_H

#include "counters.h"
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#define LAYOUT_MAGIC 0x4e545254u /* "TRTN" */
#define LAYOUT_VERSION 3u

#define ROUTES_MAX 65536u
/* Open addressing at half load or less: a look-up touches few entries, whatever the number of peers. */
#define INDEX_MAX (2u * ROUTES_MAX)

/* The TOS of the outer packets of sparse flows, low delay (RFC 1349). Those of bulk flows have 0. */
#define SPARSE_TOS 0x10

#define THREADS_MAX 8u
#define QUEUES_MAX 4u
/* The most lanes that tartand makes: a queue each, and one for sparse flows. */
#define LANES_MAX 3u

/* The packets that may wait in the TUN link while the data process is replaced or paused. The kernel's default is 500. */
#define TUN_QUEUE_PACKETS 5000

/* One subnet of a peer. All addresses of this header are in host order. */
struct route {
	uint32_t network;  /* host bits zero */
	uint8_t length;    /* 1..32 */
	uint8_t reserved;
	uint16_t port;     /* UDP port of the peer */
	uint32_t endpoint; /* public address of the peer */
	uint32_t reserved2;
};

/*
 * A complete table. `routes` is sorted by network and disjoint. `by_network` and `by_endpoint` hold route number + 1 at
 * index_hash(key) & (index_size - 1) or after it; 0 ends a probe. by_endpoint holds one route of each peer. `lengths`
 * has bit L set if a route of length L exists, so that a look-up probes only the lengths in use. `checksum` is that of
 * route_slot_checksum().
 */
struct route_slot {
	uint32_t generation;
	uint32_t count;
	uint32_t index_size; /* power of two, >= 2 * count, at least 2 */
	uint32_t reserved;
	uint64_t lengths;
	uint64_t checksum;
	struct route routes[ROUTES_MAX];
	uint32_t by_network[INDEX_MAX];
	uint32_t by_endpoint[INDEX_MAX];
};

/* Bits of routes_file.flags */
#define FLAG_NO_SOURCE_CHECK 1u
#define FLAG_NO_DESTINATION_CHECK 2u

struct routes_file {
	uint32_t magic;
	uint32_t version;
	uint32_t size; /* sizeof(struct routes_file) */
	/* The identity. It is written before the data process starts and stays while it lives. */
	uint32_t network;
	uint32_t network_length;
	uint32_t subnet; /* also the tunnel address */
	uint32_t subnet_length;
	uint32_t public_ip;
	uint32_t port;
	uint32_t flags;
	/* The control words. They change while the data process lives. */
	_Atomic uint32_t mtu;            /* of the tunnel; 0 pauses the threads: they read nothing */
	_Atomic uint32_t fence;          /* 1: the subnet is lost, drop both directions */
	_Atomic uint32_t drain;          /* 1: stop reading, flush, exit */
	_Atomic uint32_t generation;     /* published; its table is in slot[generation % 2] */
	_Atomic uint64_t forward_until;  /* CLOCK_BOOTTIME nanoseconds; past it drop both directions */
	uint8_t pad[192];
	struct route_slot slot[2];
};

/*
 * These control words and struct hello have the same offsets in every layout. Therefore any tartand can fence, drain
 * and replace any data process, a newer one too.
 */
_Static_assert(offsetof(struct routes_file, mtu) == 40, "a control word has moved");
_Static_assert(offsetof(struct routes_file, fence) == 44, "a control word has moved");
_Static_assert(offsetof(struct routes_file, drain) == 48, "a control word has moved");
_Static_assert(offsetof(struct routes_file, forward_until) == 56, "a control word has moved");

/* The block of one thread, which is its only writer. Threads share no cache line. */
struct thread_block {
	_Alignas(128) _Atomic uint32_t generation; /* adopted */
	_Atomic uint32_t running;                  /* 1 between the first and the last poll */
	_Atomic uint64_t counters[COUNTER_COUNT];
};

struct counters_file {
	uint32_t magic;
	uint32_t version;
	uint32_t size; /* sizeof(struct counters_file) */
	uint32_t counter_count;
	_Atomic uint32_t pid;
	_Atomic uint32_t threads;
	_Atomic uint32_t features;
	uint8_t pad[100];
	struct thread_block thread[THREADS_MAX];
};

/*
 * What datapath.sock (SOCK_SEQPACKET) sends to a new connection: one message of this form with `descriptors`
 * descriptors in SCM_RIGHTS, in this order: routes (read-only), counters, the listening socket, TUN queues, UDP
 * sockets, one eventfd per thread. The connection stays open; its end means that the process is dead. An eventfd is the
 * doorbell of a thread: it carries no value, and the thread reads the control words when it rings.
 */
struct hello {
	uint32_t magic;
	uint32_t version;
	uint32_t pid;
	uint32_t tun_queues;
	uint32_t udp_sockets;
	uint32_t threads;
	uint32_t descriptors; /* 3 + tun_queues + udp_sockets + threads */
	char build[36];       /* NUL-terminated build id */
};

/*
 * How tartand starts the data process: `tartan-datapath STATUS ROUTES COUNTERS LISTEN UID GID OWNER TUN... -1 UDP...
 * -1 WAKE...`. All are numbers: descriptors, the user and group to become, and the uid whose connections are served.
 * There are as many sockets as TUN queues: one, or one for each lane and a last one for sparse flows. Each lane has two
 * threads and the sparse flows have one, with one WAKE each. STATUS is a pipe. The data process writes an error at its
 * start to it, as one line "step: text (errno N)", or closes it without a byte just before it forwards.
 */

/* Where the probe for a key starts in an index. */
static inline uint32_t index_hash(uint32_t key)
{
	uint32_t h = key * 0x9e3779b1u;
	return h ^ (h >> 15);
}

#endif
