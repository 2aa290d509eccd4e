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

/*
 * The number, of which the compiler knows nothing. Without CAP_PERFMON the verifier follows also the branches that a
 * processor takes by mistake: nothing may be left without a value because another number says that it is not needed.
 */
static inline uint32_t opaque(uint32_t number)
{
	__asm__ volatile("" : "+r"(number));
	return number;
}

static inline struct kernel_counters *counters(void)
{
	const uint32_t first = 0;

	return look_up(&counters_map, &first);
}

/*
 * Adds to one counter. Without CAP_PERFMON the verifier wants each place of a counter in an instruction of its own, so
 * the compiler may not share one among several; the empty instructions differ by their operand.
 */
static inline void count(struct kernel_counters *n, enum counter counter, uint64_t by)
{
	switch (counter) {
#define CASE(name) \
	case name: \
		n->of[name] += by; \
		__asm__ volatile("" : : "i"(name)); \
		break;
		COUNTERS(CASE)
#undef CASE
	default:
		break;
	}
}

/* The peer in whose prefix the address lies, and its number. */
static inline struct kernel_peer *find_peer(uint32_t address, uint32_t *number)
{
#pragma clang loop unroll(full)
	for (uint32_t i = 0; i < KERNEL_LENGTHS_MAX; i++) {
		const uint32_t length = config.lengths[i];
		if (length == 0)
			return NULL;
		const struct kernel_prefix prefix = { .address = address & ~0u << (32 - length), .length = length };
		const uint32_t *found = look_up(&prefixes_map, &prefix);
		if (found != NULL) {
			*number = *found;
			return look_up(&peers_map, number);
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

/* Reads the header, zeros if it cannot be read. Returns the first fault of the checks that datapath/ipv4.c begins with, or rx_ok. */
static inline enum counter read_header(struct __sk_buff *skb, const uint32_t start, struct view *v)
{
	struct ipv4_header h;

	*v = (struct view){ 0 };
	if (skb->len < start + IPV4_HEADER_BYTES)
		return rx_short;
	if (skb->protocol != swap16(ETH_P_IP))
		return rx_bad_version;
	/* Not by direct access: without CAP_PERFMON early kernels refuse to compare pointers into the packet. */
	if (load_bytes(skb, start, &h, sizeof h) != 0)
		return rx_short;
	const uint32_t fragment = swap16(h.fragment);
	*v = (struct view){
		.start = start,
		.length = skb->len - start,
		.header_bytes = (h.version_length & 15u) * 4,
		.total = swap16(h.total),
		.fragment = fragment & (0x1fff | MORE_FRAGMENTS),
		.source = swap32(h.source),
		.destination = swap32(h.destination),
		.dont_fragment = (fragment & 0x4000) != 0,
		.ttl = h.ttl,
		.protocol = h.protocol,
	};
	if (h.version_length >> 4 != 4)
		return rx_bad_version;
	if (v->header_bytes < IPV4_HEADER_BYTES || v->header_bytes > v->length)
		return rx_bad_ihl;
	return v->total < v->header_bytes || v->total > v->length ? rx_bad_len : rx_ok;
}

static inline enum counter see(struct __sk_buff *skb, const uint32_t start, struct view *v)
{
	return (enum counter)opaque(read_header(skb, start, v));
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

static inline struct bpf_tunnel_key *make_key(struct kernel_counters *n, uint32_t vni, uint32_t remote, uint32_t local)
{
	struct bpf_tunnel_key *key = (void *)n->key;

	_Static_assert(sizeof n->key == sizeof *key, "a tunnel key has another size");
	key->tunnel_id = vni;
	key->remote_ipv4 = remote;
	key->tunnel_tos = 0;
	key->tunnel_ttl = 64;
	key->tunnel_ext = 0;
	key->tunnel_label = 0;
	key->local_ipv4 = local;
	return key;
}

/* NULL: the packet came out of no tunnel. The local address is 0 where the kernel does not tell it. */
static inline const struct bpf_tunnel_key *read_key(struct __sk_buff *skb, struct kernel_counters *n)
{
	struct bpf_tunnel_key *key = (void *)n->key;

	if (get_tunnel_key(skb, key, sizeof *key, 0) == 0)
		return key;
	key->local_ipv4 = 0;
	return get_tunnel_key(skb, key, EARLIER_KEY_BYTES, 0) == 0 ? key : NULL;
}

/* The verdict that sends the packet by tartan-k, or TC_ACT_SHOT. Before Linux 6.0 the route chooses the local address. */
static inline int tunnel(struct __sk_buff *skb, struct kernel_counters *n, uint32_t remote, uint32_t local, uint64_t flags)
{
	const struct bpf_tunnel_key *key = make_key(n, config.vni, remote, local);

	if (set_tunnel_key(skb, key, sizeof *key, flags) != 0 && set_tunnel_key(skb, key, EARLIER_KEY_BYTES, flags) != 0)
		return TC_ACT_SHOT;
	return (int)redirect(config.link, 0);
}

#endif
