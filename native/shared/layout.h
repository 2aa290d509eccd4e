/*
 * The contract of tartand and tartan-datapath: the two shared memories through which they speak, the messages by which
 * a data process sends its descriptors to a new tartand, and the command line. Both programs include this header. A
 * change of the layout is a new LAYOUT_VERSION.
 *
 *   routes    is written by tartand only. The data process has a read-only descriptor and maps it read-only.
 *   counters  is written by the data process only: one block per thread, one block per peer. tartand writes its first
 *             words when it makes the memory, and trusts no value in it afterwards.
 *
 * Every word has one writer, or is atomic. Both memories are little-endian files without a name (memfd_create(2)) whose
 * size is sealed. They are sparse: tartand reserves pages (fallocate(2)) before either program touches them, as many as
 * the peers need. Nobody reads what was not reserved, because that takes memory too, and a fault if there is none.
 */
#ifndef TARTAN_LAYOUT_H
#define TARTAN_LAYOUT_H

#include "counters.h"
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#define LAYOUT_MAGIC 0x4e545254u /* "TRTN" */
#define LAYOUT_VERSION 4u
/* A program of another layout maps this much of `routes`. Everything before the slots lies in it. */
#define HEAD_BYTES 4096u

/* The most peers, and the most routes of either address family. */
#define PEERS_MAX 65536u
#define FAMILY_ROUTES_MAX 65536u
#define ROUTES_MAX (2u * FAMILY_ROUTES_MAX)
/* Open addressing at half load or less: a look-up touches few entries, whatever the number of peers. */
#define INDEX_MAX (2u * ROUTES_MAX)

/*
 * The TOS of the outer packets of sparse flows, low delay (RFC 1349), and of dense flows: a value that the queues of Linux
 * treat like 0, which those of bulk flows have. An earlier build takes it for 0.
 */
#define SPARSE_TOS 0x10
#define DENSE_TOS 0x18

/*
 * What a data process may have. tartand makes fewer lanes: a queue each, and one for sparse flows. Of several lanes the
 * last is for dense flows.
 */
#define THREADS_MAX 16u
#define QUEUES_MAX 8u
#define LANES_MAX 4u

/*
 * Packets that may wait in each queue of the TUN link while the data process is replaced or paused. With TSO each may
 * have 64 KiB: so 32 MiB may wait in a queue, which the kernel charges to nobody. Without TSO TCP has more packets under
 * way than the first number, and the second one is 7 MiB.
 */
#define TUN_QUEUE_PACKETS 512
#define TUN_QUEUE_PACKETS_WITHOUT_TSO 5000

#define FAMILY_IPV4 4u
#define FAMILY_IPV6 6u

/* All addresses of this header are in host order. An IPv6 address begins in word[0], an IPv4 address is word[0]. */
struct wide_address {
	uint32_t word[4];
	uint32_t family; /* 0: none */
};

/* One prefix of a peer. What an IPv4 look-up reads comes first. */
struct route {
	uint32_t peer;  /* its number */
	uint8_t length; /* 1..32 or 1..128 */
	uint8_t family; /* FAMILY_IPV4 or FAMILY_IPV6 */
	uint16_t reserved;
	uint32_t address[4]; /* as in struct wide_address; host bits zero */
};

/*
 * One peer, at the place of its number. The number stays over publications and hand-overs. A later peer gets it only
 * after every thread has adopted a table in which it was free, and its peer_block was zeroed.
 */
struct peer {
	uint32_t identity[4];  /* a hash of who has the prefixes; all zero: the number is free */
	uint32_t endpoint6[4]; /* public addresses of the peer; zero: none */
	uint32_t endpoint4;
	uint16_t port4; /* UDP ports of the peer */
	uint16_t port6;
	uint32_t features; /* FEATURE_PROBE */
	uint8_t policy; /* reserved: 0 so far */
	uint8_t engine; /* PEER_ENGINE_USER or PEER_ENGINE_KERNEL; an earlier build has 0 */
	uint16_t reserved; /* with all below: 0 so far */
	uint32_t pair[4];
};

/* Bits of peer.features: what a peer can receive beyond bare IPv4 packets. */
#define FEATURE_PROBE 1u

/* peer.engine: packets to the peer go by the data process alone, or by the kernel engine where they are not too long. */
#define PEER_ENGINE_USER 0u
#define PEER_ENGINE_KERNEL 1u

/* The words of a slot before its arrays. */
struct route_slot_head {
	uint32_t generation;
	uint32_t route_count;
	uint32_t peer_count;           /* highest number in use + 1 */
	uint32_t by_prefix_size;       /* power of two, >= 2 * route_count, at least 2 */
	uint32_t by_endpoint_size;     /* power of two, >= 2 * peer_count, at least 2 */
	uint32_t reserved;
	uint64_t lengths4;             /* bit L: there is an IPv4 route of length L */
	uint64_t lengths6[3];          /* bit L % 64 of word L / 64: the same of IPv6 */
	uint64_t checksum;             /* route_slot_checksum() */
};

/*
 * A complete table. `routes` has the IPv4 routes, then the IPv6 routes, each sorted by address and disjoint. The
 * probe for a key begins at index_hash(key) & (size - 1) of an index; 0 ends it. An entry of `by_prefix` is a route
 * number + 1, one of `by_endpoint` a peer number + 1. by_endpoint holds one peer of each IPv4 endpoint, and has room
 * for IPv6 endpoints.
 */
struct route_slot {
	struct route_slot_head head;
	struct route routes[ROUTES_MAX];
	struct peer peers[PEERS_MAX];
	uint32_t by_prefix[INDEX_MAX];
	uint32_t by_endpoint[INDEX_MAX];
};

/* Bits of routes_file.flags */
#define FLAG_NO_SOURCE_CHECK 1u
#define FLAG_NO_DESTINATION_CHECK 2u

#define SPARE_WORDS 62u

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
	/* The addresses of the identity again, with room for either family. */
	struct wide_address wide_network;
	struct wide_address wide_subnet;
	struct wide_address wide_public;
	_Atomic uint32_t asked; /* number of the newest question; a thread that reads it writes it to its block */
	/* Bytes of the longest outer packet; the longest inner packet that is received follows from it. 0: from the MTU. */
	_Atomic uint32_t underlay_mtu;
	_Atomic uint32_t spare[SPARE_WORDS]; /* reserved for control words of later builds; 0 so far */
	uint8_t pad[HEAD_BYTES - 132 - 4 * SPARE_WORDS];
	struct route_slot slot[2];
};

/*
 * These control words and struct hello have the same offsets in every layout. Therefore any tartand can fence, drain
 * and replace any data process, a newer one too.
 */
_Static_assert(offsetof(struct routes_file, mtu) == 40, "a control word has moved");
_Static_assert(offsetof(struct routes_file, fence) == 44, "a control word has moved");
_Static_assert(offsetof(struct routes_file, drain) == 48, "a control word has moved");
_Static_assert(offsetof(struct routes_file, generation) == 52, "a control word has moved");
_Static_assert(offsetof(struct routes_file, forward_until) == 56, "a control word has moved");
/* Later builds of this layout only give a meaning to what is reserved. */
_Static_assert(offsetof(struct routes_file, wide_network) == 64, "a wide address has moved");
_Static_assert(offsetof(struct routes_file, asked) == 124, "a spare word has moved");
_Static_assert(offsetof(struct routes_file, underlay_mtu) == 128, "a spare word has moved");
_Static_assert(offsetof(struct routes_file, slot) == HEAD_BYTES, "the slots begin behind the head");
_Static_assert(sizeof(struct route) == 24 && sizeof(struct peer) == 64, "a row has another size");
_Static_assert(sizeof(struct route_slot_head) == 64 && sizeof(struct route_slot) % 64 == 0, "peers cross cache lines");
_Static_assert(INDEX_MAX >= 4 * PEERS_MAX, "no room for endpoints of both families");

/* Counters of a thread. Later builds name more of them without another layout. */
#define COUNTERS_MAX 256u
_Static_assert(COUNTER_COUNT <= COUNTERS_MAX, "more counters than words for them");

/* The block of one thread, which is its only writer. Threads share no cache line. */
struct thread_block {
	_Alignas(128) _Atomic uint32_t generation; /* adopted */
	_Atomic uint32_t running;                  /* 1 between the first and the last poll */
	_Atomic uint64_t counters[COUNTERS_MAX];
	_Atomic uint32_t answered; /* the newest question that the thread itself has read */
};
_Static_assert(sizeof(struct thread_block) == 2176, "a thread block has another size");

/*
 * The words of peer_block.statistics; an earlier build has zeros there. Times are CLOCK_BOOTTIME nanoseconds, 0: never.
 *
 *   sent, received   data packets and bytes of inner packets. Any thread adds
 *   sent_ns, received_ns   when the last of them passed, or was refused by the kernel, to a millisecond. Any thread
 *   address_seen     address << 16 | port from which data came, if that is not the endpoint; 0. Any thread
 * All others are written under the lock of the prober (prober.h):
 *   asked, answered  questions and answers to them, those for the path MTU not counted, and when the last one was
 *   rtt_p50_us, rtt_p99_us   round trips of lately; 0: not known
 *   history          how many questions, 32 at most, << 32 | a bit of each: 1 if it was answered, bit 0 of the newest
 *   path_mtu_out     bytes of the longest inner packet that is known to arrive at the peer; 0: not known
 *   path_mtu_in      seconds until which it counts << 16 | bytes of the longest question that has arrived from the peer
 */
#define PEER_STATISTICS(X) \
	X(sent_ns) X(received_ns) X(sent_packets) X(sent_bytes) X(received_packets) X(received_bytes) X(address_seen) \
	X(asked) X(answered) X(asked_ns) X(answered_ns) X(rtt_p50_us) X(rtt_p99_us) X(history) X(path_mtu_out) \
	X(path_mtu_in)

enum peer_statistic {
#define PEER_STATISTIC_ENUM(name) peer_##name,
	PEER_STATISTICS(PEER_STATISTIC_ENUM)
#undef PEER_STATISTIC_ENUM
	PEER_STATISTIC_COUNT
};
#define PEER_STATISTICS_MAX 26u
_Static_assert(PEER_STATISTIC_COUNT <= PEER_STATISTICS_MAX, "more statistics than words for them");

/*
 * What the data process learns about the peer of a number. `identity` says whose it is: the first thread to adopt a
 * table zeroes each block of another identity, and then writes the new one (peer-blocks.h). A thread writes to a block
 * only if the identity is that of the peer in its own table.
 */
struct peer_block {
	_Atomic uint32_t identity[4];    /* all zero: of nobody. Its writer is the first thread to adopt a table */
	_Atomic uint32_t path_mtu;       /* bytes of the longest outer packet; 0: not known. Any thread may write it */
	_Atomic uint32_t path_mtu_until_s; /* CLOCK_BOOTTIME seconds; from then on it is not known. Written after it */
	_Atomic uint64_t last_heard_ns;  /* CLOCK_BOOTTIME; 0: never. Any thread may write it */
	_Atomic uint64_t statistics[PEER_STATISTICS_MAX]; /* enum peer_statistic; the rest is 0 so far */
	/* The newest ports from which the peer sends beside its own, four to a word. Written under the lock of the prober. */
	_Atomic uint64_t lane_ports[2];
};
_Static_assert(sizeof(struct peer_block) == 256, "a peer block has another size");

/*
 * An address that no peer has and that datagrams came from. The least recent one makes room. An earlier build has zeros.
 * Its words are written under the lock of strangers.c, or added to.
 */
#define STRANGERS_MAX 8u
struct stranger {
	_Atomic uint64_t last_ns; /* CLOCK_BOOTTIME */
	_Atomic uint64_t packets; /* since the address is in the table */
	_Atomic uint32_t address; /* 0: none */
	uint32_t reserved;
};
_Static_assert(sizeof(struct stranger) == 24, "a stranger has another size");

struct counters_file {
	uint32_t magic;
	uint32_t version;
	uint32_t size; /* sizeof(struct counters_file) */
	uint32_t counter_count; /* that have a name; a reader knows those up to its own count */
	_Atomic uint32_t pid;
	_Atomic uint32_t threads;
	_Atomic uint32_t features;
	_Atomic uint32_t blocks_generation; /* of the newest table to which a thread has fitted the peer blocks */
	_Atomic uint32_t blocks_count;      /* peer_count of that table. By the thread that fits the blocks */
	_Atomic uint32_t denied_call; /* number + 1 of the system call for which the process was killed; 0: none */
	_Atomic uint32_t refused;     /* REFUSED() */
	uint8_t pad[84];
	struct thread_block thread[THREADS_MAX];
	struct stranger stranger[STRANGERS_MAX];
	uint8_t pad2[1920 - STRANGERS_MAX * 24];
	struct peer_block peer[PEERS_MAX];
};
_Static_assert(offsetof(struct counters_file, thread) == 128, "the thread blocks have moved");
_Static_assert(offsetof(struct counters_file, peer) % 4096 == 0, "the peer blocks begin in a page of their own");

/*
 * What datapath.sock (SOCK_SEQPACKET) sends to a new connection: two messages. The connection stays open; its end means
 * that the process is dead.
 *
 * The first is of this form in every layout, with `descriptors` descriptors in SCM_RIGHTS, in this order: routes
 * (read-only), counters, the listening socket, TUN queues, UDP sockets, doorbells. Programs of earlier layouts read no
 * other message.
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
 * The second message, which comes from layout 4 on: this struct and `count` entries, with the descriptors of all
 * entries in SCM_RIGHTS. A reader closes descriptors of a type that it does not know. So a later build may add types,
 * and make entries longer.
 */
struct hello_list {
	uint32_t magic;
	uint32_t version;
	uint32_t count;
};

struct hello_entry {
	uint16_t type;        /* enum descriptor_type */
	uint16_t bytes;       /* of this entry */
	uint32_t descriptors; /* so many of the message are of this type */
};
#define HELLO_LIST_VERSION 4u /* the first layout that sends it */
#define HELLO_LIST_BYTES_MAX 4096u

enum descriptor_type {
	DESCRIPTOR_ROUTES = 1,
	DESCRIPTOR_COUNTERS,
	DESCRIPTOR_LISTENER,
	DESCRIPTOR_TUN,
	DESCRIPTOR_UDP,
	/* The eventfd of a thread. It carries no value, and the thread reads the control words when it rings. */
	DESCRIPTOR_DOORBELL,
	DESCRIPTOR_TYPES,
};
_Static_assert(sizeof(struct hello) == 64, "the first message has another size");
_Static_assert(sizeof(struct hello_list) == 12 && sizeof(struct hello_entry) == 8, "the second message has gaps");

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

static inline uint32_t index_hash6(const uint32_t key[4])
{
	return index_hash(key[0] ^ index_hash(key[1] ^ index_hash(key[2] ^ index_hash(key[3]))));
}

#endif
