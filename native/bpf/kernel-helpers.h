/* For kernel-path.bpf.c: the kernel's helpers, the maps, and the IPv4 header of a packet. */
#ifndef TARTAN_KERNEL_HELPERS_H
#define TARTAN_KERNEL_HELPERS_H

#include "kernel-maps.h"
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/pkt_cls.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A function that is not inlined would need a relocation, and the verifier would judge it apart. */
#define inline inline __attribute__((always_inline))

#define AF_INET 2
#define IPV4_HEADER_BYTES 20u
#define MORE_FRAGMENTS 0x2000u

static void *(*const look_up)(const void *, const void *) = (void *)BPF_FUNC_map_lookup_elem;
static long (*const update)(const void *, const void *, const void *, uint64_t) = (void *)BPF_FUNC_map_update_elem;
static uint64_t (*const boot_ns)(void) = (void *)BPF_FUNC_ktime_get_boot_ns;
static uint32_t (*const random32)(void) = (void *)BPF_FUNC_get_prandom_u32;
static long (*const load_bytes)(const struct __sk_buff *, uint32_t, void *, uint32_t) = (void *)BPF_FUNC_skb_load_bytes;
static long (*const store_bytes)(struct __sk_buff *, uint32_t, const void *, uint32_t, uint64_t) =
	(void *)BPF_FUNC_skb_store_bytes;
static long (*const l4_csum_replace)(struct __sk_buff *, uint32_t, uint64_t, uint64_t, uint64_t) =
	(void *)BPF_FUNC_l4_csum_replace;
static long (*const set_tunnel_key)(struct __sk_buff *, const struct bpf_tunnel_key *, uint32_t, uint64_t) =
	(void *)BPF_FUNC_skb_set_tunnel_key;
static long (*const get_tunnel_key)(struct __sk_buff *, struct bpf_tunnel_key *, uint32_t, uint64_t) =
	(void *)BPF_FUNC_skb_get_tunnel_key;
static long (*const fib_lookup)(struct __sk_buff *, struct bpf_fib_lookup *, int, uint32_t) = (void *)BPF_FUNC_fib_lookup;
/* Linux 5.12. For earlier kernels the loader puts 0 in the place of the call. */
static long (*const check_mtu)(struct __sk_buff *, uint32_t, uint32_t *, int32_t, uint64_t) = (void *)BPF_FUNC_check_mtu;
static long (*const redirect)(uint32_t, uint64_t) = (void *)BPF_FUNC_redirect;

/* The loader puts addresses of maps in the place of these names, and that of its only value for `config`. */
extern const struct kernel_config config;
extern const struct map peers_map, prefixes_map, endpoints_map, traffic_map, counters_map, flows_map;

static inline uint16_t swap16(uint16_t v)
{
	return __builtin_bswap16(v);
}

static inline uint32_t swap32(uint32_t v)
{
	return __builtin_bswap32(v);
}

static inline uint64_t swap64(uint64_t v)
{
	return __builtin_bswap64(v);
}

/* What the rules need of a packet. */
struct view {
	uint32_t start;  /* where it begins in the buffer */
	uint32_t length; /* bytes received */
	uint32_t header_bytes;
	uint32_t total;
	uint32_t fragment; /* offset in units of 8 bytes, and MORE_FRAGMENTS */
	uint32_t source;
	uint32_t destination;
	bool dont_fragment;
	uint8_t ttl;
	uint8_t protocol;
};

/* A packet as it crosses the underlay: one that the kernel will cut, or has merged, is several. */
struct crossing {
	uint32_t packets;
	uint32_t bytes;   /* of all inner packets */
	uint32_t longest; /* bytes of the longest inner packet */
};

/* The header has no options here: what is behind these bytes is not read. */
struct ipv4_header {
	uint8_t version_length;
	uint8_t tos;
	uint16_t total;
	uint16_t identification;
	uint16_t fragment;
	uint8_t ttl;
	uint8_t protocol;
	uint16_t checksum;
	uint32_t source;
	uint32_t destination;
};

/*
 * The counters, and what a program keeps of the packet that it has in hand. Not on the stack: without CAP_PERFMON most
 * stores there wait for all stores before them. Both programs run with bottom halves off, so no other packet comes
 * between on this processor.
 */
struct hand {
	uint64_t of[COUNTER_COUNT]; /* as struct kernel_counters begins */
	struct kernel_traffic unnoted;
	struct ipv4_header header;
	struct view view;
	struct crossing crossing;
	struct kernel_prefix prefix;
	uint32_t number; /* of the peer */
	uint32_t local;  /* our address towards it */
	bool is_bound;   /* the inner source is of the peer that has the outer address */
	uint8_t offset;  /* the byte of a TCP header with its length */
	uint32_t fault;  /* enum counter */
	uint32_t counter;
	uint64_t now;
	struct bpf_tunnel_key key;
	uint32_t mtu;
	uint32_t probe[3]; /* how one begins */
	struct kernel_flow flow;
	struct bpf_fib_lookup way;
};
_Static_assert(sizeof(struct hand) <= sizeof(struct kernel_counters), "a hand has no room");
_Static_assert(offsetof(struct hand, header) == offsetof(struct kernel_counters, hand), "counters have another place");

/* A copy of which the compiler knows nothing: else it would keep sums with it on the stack for later. */
static inline struct hand *fresh(struct hand *h)
{
	__asm__ volatile("" : "+r"(h));
	return h;
}
/* The address of a member. */
#define PART(h, member) (&fresh(h)->member)

static inline struct hand *take_hand(void)
{
	return look_up(&counters_map, &config.no_traffic); /* a key of zeros */
}

/* The counter is a constant. */
static inline void count(struct hand *h, enum counter counter, uint64_t by)
{
	h->of[counter] += by;
}

/*
 * For a counter that is one of several. The verifier may not know which: without CAP_PERFMON it refuses an instruction
 * that adds several constants to one address.
 */
static inline void count_any(struct hand *h, enum counter counter, uint64_t by)
{
	volatile uint32_t *unknown = &h->counter;

	_Static_assert(COUNTER_COUNT <= 64 && sizeof *h >= 64 * sizeof h->of[0], "a counter is out of bounds");
	*unknown = counter;
	h->of[*unknown & 63] += by;
}

static inline int drop(struct hand *h, enum counter why, uint32_t packets)
{
	count_any(h, why, packets);
	return TC_ACT_SHOT;
}

/* The peer in whose prefix the address lies, and its number. */
static inline struct kernel_peer *find_peer(const uint32_t *address, struct hand *h)
{
#pragma clang loop unroll(full)
	for (uint32_t i = 0; i < KERNEL_LENGTHS_MAX; i++) {
		const uint32_t length = config.lengths[i];
		if (length == 0)
			return NULL;
		h->prefix.address = *address & ~0u << (32 - length);
		h->prefix.length = length;
		const uint32_t *found = look_up(&prefixes_map, PART(h, prefix));
		if (found != NULL) {
			h->number = *found;
			return look_up(&peers_map, PART(h, number));
		}
	}
	return NULL;
}

static inline bool in_subnet(uint32_t address)
{
	return (address & config.subnet_mask) == config.subnet;
}

/* The directed broadcast of a prefix; a /31 or /32 has none (RFC 3021). */
static inline bool is_broadcast_of(uint32_t address, uint32_t network, uint32_t mask)
{
	return ~mask > 1 && address == (network | ~mask);
}

static inline bool is_martian(uint32_t address)
{
	const uint32_t high = address >> 24;

	return high == 0 || high == 127 || high >= 224;
}

/* Reads the header. Returns the first fault of the checks that datapath/ipv4.c begins with, or rx_ok. */
static inline enum counter see(struct __sk_buff *skb, const uint32_t start, struct hand *h)
{
	const struct ipv4_header *header = &h->header;
	struct view *v = &h->view;

	if (skb->len < start + IPV4_HEADER_BYTES)
		return rx_short;
	if (skb->protocol != swap16(ETH_P_IP))
		return rx_bad_version;
	/* Not by direct access: without CAP_PERFMON early kernels refuse to compare pointers into the packet. */
	if (load_bytes(skb, start, PART(h, header), sizeof h->header) != 0)
		return rx_short;
	const uint32_t fragment = swap16(header->fragment);
	*v = (struct view){
		.start = start,
		.length = skb->len - start,
		.header_bytes = (header->version_length & 15u) * 4,
		.total = swap16(header->total),
		.fragment = fragment & (0x1fff | MORE_FRAGMENTS),
		.source = swap32(header->source),
		.destination = swap32(header->destination),
		.dont_fragment = (fragment & 0x4000) != 0,
		.ttl = header->ttl,
		.protocol = header->protocol,
	};
	if (header->version_length >> 4 != 4)
		return rx_bad_version;
	if (v->header_bytes < IPV4_HEADER_BYTES || v->header_bytes > v->length)
		return rx_bad_ihl;
	return v->total < v->header_bytes || v->total > v->length ? rx_bad_len : rx_ok;
}

/* Whether no datagram can have been fragmented into this offset and length (RFC 791 section 3.2). */
static inline bool fragment_impossible(const struct view *v)
{
	const uint32_t payload = v->total - v->header_bytes;

	if (v->fragment == 0)
		return false;
	if ((v->fragment & 0x1fff) * 8 + payload > 65535)
		return true;
	return (v->fragment & MORE_FRAGMENTS) != 0 && (payload == 0 || payload % 8 != 0);
}

/* Bytes of the key before Linux 6.0, which had no local address, and of that of 5.10. */
#define EARLIER_KEY_BYTES 28

static inline void make_key(struct hand *h, uint32_t vni, uint32_t remote, uint32_t local)
{
	h->key.tunnel_id = vni;
	h->key.remote_ipv4 = remote;
	h->key.tunnel_tos = 0;
	h->key.tunnel_ttl = 64;
	h->key.tunnel_ext = 0;
	h->key.tunnel_label = 0;
	h->key.local_ipv4 = local;
}

/* False: the packet came out of no tunnel. The local address is 0 where the kernel does not tell it. */
static inline bool read_key(struct __sk_buff *skb, struct hand *h)
{
	if (get_tunnel_key(skb, PART(h, key), sizeof h->key, 0) == 0)
		return true;
	h->key.local_ipv4 = 0;
	return get_tunnel_key(skb, PART(h, key), EARLIER_KEY_BYTES, 0) == 0;
}

/* The packet is to leave by tartan-k. Before Linux 6.0 the route chooses the local address. */
static inline bool tunnel(struct __sk_buff *skb, struct hand *h, uint32_t remote, uint32_t local, uint64_t flags)
{
	make_key(h, config.vni, remote, local);
	return set_tunnel_key(skb, PART(h, key), sizeof h->key, flags) == 0 ||
	       set_tunnel_key(skb, PART(h, key), EARLIER_KEY_BYTES, flags) == 0;
}

#endif
